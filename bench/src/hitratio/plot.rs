//! One panel a workload: the hit ratio over the size of the cache.

use super::{NAMES, PERCENTS, Row};
use std::fmt::Write as _;

const COLUMNS: usize = 4;
const PANEL_WIDTH: f64 = 230.0;
const PANEL_HEIGHT: f64 = 190.0;

/// Of a panel: what is left for the curves.
const LEFT: f64 = 38.0;
const TOP: f64 = 26.0;
const WIDTH: f64 = 180.0;
const HEIGHT: f64 = 130.0;

/// The palette of Okabe and Ito (2008), which the colour-blind tell apart.
const COLOURS: [&str; NAMES.len()] = ["#d55e00", "#0072b2", "#999999", "#009e73", "#cc79a7"];

/// An SVG document; rows of a workload follow each other in the order of [`PERCENTS`].
pub(super) fn draw(rows: &[Row]) -> String {
    let panels: Vec<&[Row]> = rows.chunks(PERCENTS.len()).collect();
    let width = COLUMNS as f64 * PANEL_WIDTH;
    let height = panels.len().div_ceil(COLUMNS) as f64 * PANEL_HEIGHT + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"10\">\n\
         <title>Hit ratio by size of the cache</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (place, (name, colour)) in NAMES.iter().zip(COLOURS).enumerate() {
        let x = LEFT + 110.0 * place as f64;
        line(&mut svg, [x, x + 20.0], 16.0, &format!("{colour}\" stroke-width=\"2"));
        text(&mut svg, x + 26.0, 20.0, "start", name);
    }
    for (place, panel) in panels.into_iter().enumerate() {
        let x = (place % COLUMNS) as f64 * PANEL_WIDTH;
        let y = (place / COLUMNS) as f64 * PANEL_HEIGHT + 30.0;
        add(&mut svg, format_args!("<g transform=\"translate({x} {y})\">"));
        draw_panel(&mut svg, panel);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, rows: &[Row]) {
    let ratios = || rows.iter().flat_map(|row| row.ratios);
    // Whole tens around all that is shown.
    let low = 10.0 * (ratios().fold(100.0, f64::min) / 10.0).floor();
    let high = 10.0 * (ratios().fold(0.0, f64::max) / 10.0).ceil().max(low / 10.0 + 1.0);
    let y = |ratio: f64| TOP + HEIGHT * (high - ratio) / (high - low);
    let decades = (f64::from(PERCENTS[PERCENTS.len() - 1]) / f64::from(PERCENTS[0])).log10();
    let x = |percent: u32| {
        LEFT + WIDTH * (f64::from(percent) / f64::from(PERCENTS[0])).log10() / decades
    };
    text(
        svg,
        LEFT,
        TOP - 8.0,
        "start",
        &format!("<tspan font-weight=\"bold\">{}</tspan>", rows[0].workload),
    );
    for ratio in [low, f64::midpoint(low, high), high] {
        let y = y(ratio);
        line(svg, [LEFT, LEFT + WIDTH], y, "#ddd");
        text(svg, LEFT - 4.0, y + 3.0, "end", &format!("{ratio}%"));
    }
    for percent in PERCENTS {
        text(svg, x(percent), TOP + HEIGHT + 14.0, "middle", &format!("{percent}%"));
    }
    // Ours is drawn last, on top.
    for place in (0..NAMES.len()).rev() {
        let points: Vec<String> = rows
            .iter()
            .map(|row| format!("{:.1},{:.1}", x(row.percent), y(row.ratios[place])))
            .collect();
        add(
            svg,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>",
                points.join(" "),
                COLOURS[place]
            ),
        );
    }
}

fn line(svg: &mut String, [x1, x2]: [f64; 2], y: f64, stroke: &str) {
    let ends = format!("x1=\"{x1}\" y1=\"{y:.1}\" x2=\"{x2}\" y2=\"{y:.1}\"");
    add(svg, format_args!("<line {ends} stroke=\"{stroke}\"/>"));
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    add(
        svg,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"),
    );
}

fn add(svg: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(svg, "{line}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_panel_for_each_workload_and_a_curve_for_each_cache() {
        let row =
            |workload, percent| Row { workload, percent, ratios: [10.0, 20.0, 30.0, 40.0, 50.0] };
        let rows: Vec<Row> = ["first", "second"]
            .into_iter()
            .flat_map(|workload| PERCENTS.map(|percent| row(workload, percent)))
            .collect();
        let svg = draw(&rows);
        assert_eq!(svg.matches("<polyline").count(), 2 * NAMES.len());
        assert!(svg.contains(">second<") && svg.contains(">quick_cache<"));
        // The best is at the top of the panel, and the worst at its bottom.
        assert!(svg.contains("points=\"38.0,26.0 "), "{svg}");
        assert!(svg.contains("points=\"38.0,156.0 "), "{svg}");
    }
}
