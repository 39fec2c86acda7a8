//! The list of faults, `tests/mutants.toml`.

use crate::process::root;
use serde::Deserialize;

/// One fault.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// What it breaks.
    pub name: String,
    /// Path from the top of the repository.
    pub file: String,
    /// The line that it replaces, without the spaces around it.
    pub line: String,
    /// A line before it, where the line alone stands there more than once.
    pub after: Option<String>,
    /// What stands there instead.
    pub with: String,
    /// Why no test can find it, where none can.
    pub survives: Option<String>,
}

#[derive(Deserialize)]
struct Table {
    mutant: Vec<Mutant>,
}

/// All faults.
///
/// # Errors
/// The table cannot be read.
pub fn read() -> Result<Vec<Mutant>, String> {
    let path = root().join("tests/mutants.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("mutants.toml: {error}"))?;
    let table: Table = toml::from_str(&text).map_err(|error| format!("mutants.toml: {error}"))?;
    Ok(table.mutant)
}

impl Mutant {
    /// `text` with the fault in it.
    ///
    /// # Errors
    /// The line is not there, or more than once.
    pub fn plant(&self, text: &str) -> Result<String, String> {
        let lines: Vec<&str> = text.lines().collect();
        let tests = lines.iter().position(|line| *line == "#[cfg(test)]").unwrap_or(lines.len());
        let code = &lines[..tests];
        let from = match &self.after {
            None => 0,
            Some(after) => {
                let at = code.iter().position(|line| line.trim() == after);
                at.ok_or_else(|| format!("{}: no line in {} reads {after}", self.name, self.file))?
            }
        };
        let mut places = (from..code.len()).filter(|place| code[*place].trim() == self.line);
        let place = places.next().ok_or_else(|| {
            format!("{}: no line in {} reads {}", self.name, self.file, self.line)
        })?;
        if self.after.is_none() && places.next().is_some() {
            return Err(format!("{}: {} has that line twice: {}", self.name, self.file, self.line));
        }
        let mut faulty = lines.clone();
        faulty[place] = &self.with;
        Ok(faulty.join("\n") + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(after: Option<&str>) -> Mutant {
        Mutant {
            name: "m".into(),
            file: "f.rs".into(),
            line: "a();".into(),
            after: after.map(Into::into),
            with: "b();".into(),
            survives: None,
        }
    }

    #[test]
    fn a_fault_replaces_one_line_and_never_one_of_the_tests() {
        let text = "fn f() {\n    a();\n}\n#[cfg(test)]\nmod tests { fn g() {\n a();\n} }\n";
        let faulty = mutant(None).plant(text).unwrap();
        assert_eq!(faulty, text.replacen("    a();", "b();", 1));
        assert!(mutant(None).plant("fn f() {}\n#[cfg(test)]\na();\n").is_err());
    }

    #[test]
    fn a_line_that_stands_there_twice_needs_one_before_it() {
        let text = "fn f() {\na();\n}\nfn g() {\na();\n}\n";
        assert!(mutant(None).plant(text).unwrap_err().contains("twice"));
        let faulty = mutant(Some("fn g() {")).plant(text).unwrap();
        assert_eq!(faulty, "fn f() {\na();\n}\nfn g() {\nb();\n}\n");
        assert!(mutant(Some("fn h() {")).plant(text).is_err());
    }
}
