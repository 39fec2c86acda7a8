//! Boxes go to and fro: what is in one is touched by one side at a time, and none is lost.

#[cfg(test)]
mod tests {
    use loom::cell::UnsafeCell;
    use loom::thread;
    use pelton_models::mesh::boxes;

    /// A cell, so that loom sees both sides touch what is in a box.
    type Content = UnsafeCell<u32>;

    #[test]
    fn a_box_is_filled_and_read_by_one_side_at_a_time_and_comes_back() {
        loom::model(|| {
            let (mut giver, mut taker) = boxes(1);
            taker.give_back(Box::new(Content::new(0)));
            let writer = thread::spawn(move || {
                let mut given = 0;
                for _ in 0..3 {
                    // It is exchanged for a box of its own, as histograms are.
                    let mut own = Box::new(Content::new(given + 1));
                    let fill = |content: &mut Box<Content>| {
                        content.with_mut(|_| ());
                        std::mem::swap(content, &mut own);
                    };
                    given += u32::from(giver.give(fill));
                }
                given
            });
            let mut taken = 0;
            for _ in 0..3 {
                if let Some(content) = taker.take() {
                    content.with_mut(|_| ());
                    taken += 1;
                    assert_eq!(content.into_inner(), taken, "in order, each once");
                    taker.give_back(Box::new(Content::new(0)));
                }
            }
            let given = writer.join().unwrap();
            assert!(given >= 1, "the box was there from the start");
            let left = std::iter::from_fn(|| taker.take()).count();
            assert_eq!(given, taken + u32::try_from(left).unwrap());
        });
    }
}
