//! The checker is tried: with histories that are true, with faults that are planted in them, and
//! beside the checker that tries every order.

use super::check::check;
use super::made::{Shape, history};
use super::violation::Fault;
use super::{Action, Operation, Outcome, Seen, brute};
use crate::prng::Prng;
use proptest::collection::vec;
use proptest::prelude::*;

/// Histories of each kind.
const SEEDS: u64 = 300;

/// Histories of a few operations.
const SMALL_SEEDS: u64 = 30_000;

fn done(action: Action, invoked_ns: u64, responded_ns: u64) -> Operation {
    let (outcome, seen) = (Outcome::Done, Seen::default());
    Operation { action, outcome, invoked_ns, responded_ns, seen }
}

fn shape(prng: &mut Prng) -> Shape {
    Shape {
        count: prng.size(1, 400),
        stretch_ns: prng.pick(&[1, 20, 200, 5_000]),
        changes_per_mille: prng.pick(&[50, 300, 900]),
        deletes_per_mille: prng.pick(&[0, 200, 800]),
        failures_per_mille: prng.pick(&[0, 100, 400]),
    }
}

#[test]
fn what_one_register_did_is_always_accepted() {
    for seed in 0..10 * SEEDS {
        let mut prng = Prng::new(seed);
        let shape = shape(&mut prng);
        let history = history(&mut prng, shape);
        if let Err(violation) = check(&history) {
            panic!("seed {seed}, {shape:?}: {violation}");
        }
    }
}

#[test]
fn a_long_history_of_which_much_overlaps_is_accepted_whole_and_refused_for_one_read() {
    let mut prng = Prng::new(1);
    let shape = Shape {
        count: 50_000,
        stretch_ns: 3_000,
        changes_per_mille: 100,
        deletes_per_mille: 300,
        failures_per_mille: 20,
    };
    let mut history = history(&mut prng, shape);
    assert_eq!(check(&history), Ok(()));
    let (old, new) = pairs(&history, Action::Write(0))[0];
    history.push(done(read_of(old), new.responded_ns + 1, new.responded_ns + 2));
    assert!(check(&history).is_err());
}

/// The read of what a write wrote.
fn read_of(write: Operation) -> Action {
    let Action::Write(version) = write.action else { panic!("{write:?} writes nothing") };
    Action::Read(Some(version))
}

/// Acknowledged writes, each with the first acknowledged change of the kind of `like` that began
/// after it had ended.
fn pairs(history: &[Operation], like: Action) -> Vec<(Operation, Operation)> {
    let is = |operation: &Operation, like: Action| {
        operation.outcome == Outcome::Done
            && std::mem::discriminant(&operation.action) == std::mem::discriminant(&like)
    };
    let mut changes: Vec<Operation> =
        history.iter().filter(|operation| is(operation, like)).copied().collect();
    changes.sort_unstable_by_key(|change| change.invoked_ns);
    let writes = history.iter().filter(|operation| is(operation, Action::Write(0)));
    let pair = |write: &Operation| {
        let next = changes.partition_point(|change| change.invoked_ns <= write.responded_ns);
        changes.get(next).map(|change| (*write, *change))
    };
    writes.filter_map(pair).collect()
}

/// Plants a fault in histories of many shapes: all are refused. `plant` may find no place for it,
/// not too often.
fn refuses(deletes_per_mille: u32, plant: impl Fn(&mut Prng, &mut Vec<Operation>) -> Option<()>) {
    let mut planted = 0;
    for seed in 0..SEEDS {
        let mut prng = Prng::new(seed);
        let shape = Shape { deletes_per_mille, ..shape(&mut prng) };
        let mut history = history(&mut prng, shape);
        if plant(&mut prng, &mut history).is_some() {
            planted += 1;
            assert!(check(&history).is_err(), "seed {seed}, {shape:?}");
        }
    }
    assert!(planted > SEEDS / 3, "{planted}");
}

/// One of them, where there is one.
fn any<T: Copy>(prng: &mut Prng, choices: &[T]) -> Option<T> {
    (!choices.is_empty()).then(|| prng.pick(choices))
}

#[test]
fn a_stale_read_after_an_acknowledged_write_is_refused() {
    refuses(200, |prng, history| {
        let (old, new) = any(prng, &pairs(history, Action::Write(0)))?;
        let begun_ns = new.responded_ns + 1 + prng.below(100);
        history.push(done(read_of(old), begun_ns, begun_ns + 1000));
        Some(())
    });
}

#[test]
fn a_read_of_a_value_that_was_never_written_is_refused() {
    refuses(200, |prng, history| {
        let begun_ns = 1_000_000 + prng.below(4_000);
        history.push(done(Action::Read(Some(1_000_000)), begun_ns, begun_ns + 1_000));
        Some(())
    });
}

#[test]
fn a_lost_write_is_refused() {
    refuses(200, |prng, history| {
        let (old, lost) = any(prng, &pairs(history, Action::Write(0)))?;
        history.retain(|operation| operation.action != read_of(lost));
        let begun_ns = lost.responded_ns + 1;
        history.push(done(read_of(old), begun_ns, begun_ns + 1));
        Some(())
    });
}

#[test]
fn a_new_value_and_then_an_old_one_is_refused_while_the_write_of_the_new_goes_on() {
    refuses(200, |prng, history| {
        let (old, new) = any(prng, &pairs(history, Action::Write(0)))?;
        let is_new = |operation: &&mut Operation| operation.action == new.action;
        let write = history.iter_mut().find(is_new)?;
        if prng.coin() {
            write.outcome = Outcome::Unknown;
        }
        write.responded_ns += 1_000_000;
        let seen_ns = new.invoked_ns + 1;
        history.push(done(read_of(new), seen_ns, seen_ns + 5));
        history.push(done(read_of(old), seen_ns + 6, seen_ns + 500));
        Some(())
    });
}

#[test]
fn a_read_of_a_refused_write_is_refused() {
    refuses(200, |prng, history| {
        let read = |operation: &Operation| match operation.action {
            Action::Read(version) => version,
            Action::Write(_) | Action::Delete => None,
        };
        let version = any(prng, &history.iter().filter_map(read).collect::<Vec<_>>())?;
        let is_its_write = |operation: &&mut Operation| operation.action == Action::Write(version);
        history.iter_mut().find(is_its_write)?.outcome = Outcome::NotDone;
        Some(())
    });
}

#[test]
fn a_value_that_comes_back_after_its_delete_is_refused() {
    refuses(500, |prng, history| {
        let (write, delete) = any(prng, &pairs(history, Action::Delete))?;
        let begun_ns = delete.responded_ns + 1 + prng.below(100);
        history.push(done(read_of(write), begun_ns, begun_ns + 1_000));
        Some(())
    });
}

#[test]
fn absence_after_an_acknowledged_write_that_nobody_deleted_is_refused() {
    refuses(0, |prng, history| {
        let (write, _) = any(prng, &pairs(history, Action::Write(0)))?;
        let begun_ns = write.responded_ns + 1;
        history.push(done(Action::Read(None), begun_ns, begun_ns + prng.below(10_000)));
        Some(())
    });
}

#[test]
fn a_read_before_its_write_began_is_refused() {
    refuses(200, |prng, history| {
        let (_, write) = any(prng, &pairs(history, Action::Write(0)))?;
        history.push(done(read_of(write), 0, write.invoked_ns - 1));
        Some(())
    });
}

#[test]
fn each_fault_is_called_by_its_name() {
    use Action::{Delete, Read, Write};
    let refused = Operation { outcome: Outcome::NotDone, ..done(Write(1), 0, 1) };
    let held = [done(Write(1), 0, 1), done(Read(Some(1)), 20, 30)];
    let with = |other: Operation| vec![held[0], held[1], other];
    for (history, fault) in [
        (vec![done(Read(Some(1)), 0, 1)], Fault::NeverWritten),
        (vec![refused, done(Read(Some(1)), 2, 3)], Fault::Refused),
        (vec![done(Read(Some(1)), 0, 1), done(Write(1), 2, 3)], Fault::Early),
        (
            [&held[..], &[done(Write(2), 0, 2), done(Read(Some(2)), 3, 4)]].concat(),
            Fault::TwoAtOnce,
        ),
        (with(done(Write(2), 2, 19)), Fault::Overwritten),
        (with(done(Delete, 2, 19)), Fault::Deleted),
        (with(done(Read(None), 2, 19)), Fault::Missing),
        (with(done(Read(None), 2, 21)), Fault::NotDeleted),
    ] {
        assert_eq!(check(&history).expect_err("it is false").fault(), fault, "{history:?}");
    }
}

#[test]
fn a_delete_makes_one_absence_and_a_new_one_takes_another_delete() {
    use Action::{Delete, Read, Write};
    let history = |second_delete: &[Operation]| {
        let first = [done(Write(1), 0, 1), done(Read(None), 2, 3), done(Delete, 1, 10)];
        let second = [done(Write(2), 5, 6), done(Read(None), 8, 20)];
        [&first[..], &second, second_delete].concat()
    };
    assert!(check(&history(&[])).is_err());
    assert_eq!(check(&history(&[done(Delete, 7, 30)])), Ok(()));
    let unknown = Operation { outcome: Outcome::Unknown, ..done(Delete, 0, 1) };
    assert_eq!(check(&history(&[unknown])), Ok(()));
    assert!(check(&history(&[Operation { outcome: Outcome::NotDone, ..unknown }])).is_err());
}

/// A few operations, whatever they are, whose reads name values that are written. Most have a
/// short range: those decide.
fn anything() -> impl Strategy<Value = Vec<Operation>> {
    let length_ns = prop_oneof![3 => 0_u64..3, 1 => 0_u64..16];
    let operation = (0_u8..6, 0_u64..100, 0_u8..12, 0_u64..16, length_ns);
    vec(operation, 1..9).prop_map(|drawn| {
        let writes = drawn.iter().filter(|(action, ..)| *action < 2).count() as u64;
        let mut written = 0;
        let operation = |(action, read, outcome, invoked_ns, length_ns)| Operation {
            action: match action {
                0 | 1 => {
                    written += 1;
                    Action::Write(written)
                }
                2 => Action::Delete,
                3 => Action::Read(None),
                _ => Action::Read(Some(read % (writes + 1)).filter(|version| *version > 0)),
            },
            outcome: match outcome {
                0 => Outcome::NotDone,
                1 => Outcome::Unknown,
                _ => Outcome::Done,
            },
            invoked_ns,
            responded_ns: invoked_ns + length_ns,
            seen: Seen::default(),
        };
        drawn.into_iter().map(operation).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30_000))]

    #[test]
    fn a_few_operations_are_judged_as_by_trying_every_order(history in anything()) {
        prop_assert_eq!(check(&history).is_ok(), brute::is_linearizable(&history), "{:?}", history);
    }
}

#[test]
fn true_histories_of_a_few_operations_and_those_next_to_them_are_judged_as_by_every_order() {
    let mut verdicts = [0; 2];
    for seed in 0..SMALL_SEEDS {
        let mut prng = Prng::new(seed);
        let shape = Shape {
            count: prng.size(4, 9),
            stretch_ns: prng.pick(&[8, 15, 30, 60]),
            changes_per_mille: 550,
            deletes_per_mille: 500,
            failures_per_mille: prng.pick(&[0, 150]),
        };
        let mut history = history(&mut prng, shape);
        for _ in 0..prng.below(7) {
            let other = history[prng.index(history.len())];
            let index = prng.index(history.len());
            let operation = &mut history[index];
            match (prng.below(4), operation.action, other.action) {
                (0, ..) => operation.responded_ns = operation.invoked_ns + prng.below(10),
                (1, ..) => operation.invoked_ns = operation.responded_ns - prng.below(10),
                (_, Action::Read(_), Action::Write(_)) => operation.action = read_of(other),
                (_, Action::Read(_), _) => operation.action = Action::Read(None),
                _ => operation.outcome = Outcome::Done,
            }
        }
        let is_true = brute::is_linearizable(&history);
        verdicts[usize::from(is_true)] += 1;
        assert_eq!(check(&history).is_ok(), is_true, "seed {seed}: {history:?}");
    }
    assert!(verdicts.iter().all(|count| *count > SMALL_SEEDS / 10), "{verdicts:?}");
}
