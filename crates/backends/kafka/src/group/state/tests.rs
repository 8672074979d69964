//! The rules of partitions, without a broker.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const CLEAN: Found = Found { committed: Some(0), suspects: 0, lease: 0 };

fn record(offset: i64) -> Record {
    Record { offset, message: Message::new(offset.to_string(), "x"), published: None }
}

/// Sends what is due, and lets it arrive.
fn write_down(state: &mut State) -> Vec<(i32, Mark)> {
    let marks = state.due();
    state.sent(&marks);
    state.settled(&marks, true);
    marks
}

fn filled(window: i64, found: Found, offsets: std::ops::Range<i64>) -> State {
    let mut state = State::new(window);
    state.assign(0, found);
    for offset in offsets {
        state.push(0, record(offset));
    }
    state
}

#[test]
fn starts_nothing_before_its_lease_is_written_down() {
    let mut state = filled(1000, CLEAN, 0..3);
    let receiver = state.join();
    assert!(state.take(receiver).is_none() && state.is_urgent());
    let marks = state.due();
    state.sent(&marks);
    assert!(state.take(receiver).is_none(), "on its way is not there");
    state.settled(&marks, false);
    assert!(state.take(receiver).is_none(), "nor is what failed");
    assert_eq!(write_down(&mut state), [(0, Mark { low: 0, lease: LEASE })]);
    assert!(state.take(receiver).unwrap().first);
}

#[test]
fn commits_only_below_the_lowest_unfinished() {
    let mut state = filled(1000, CLEAN, 0..4);
    let receiver = state.join();
    write_down(&mut state);
    let taken: Vec<Taken> = (0..3).map(|_| state.take(receiver).unwrap()).collect();
    assert!(state.finish(taken[1].token) && state.finish(taken[2].token));
    assert_eq!(state.due(), []);
    assert!(!state.finish(taken[1].token), "a verdict is given once");
    assert!(state.finish(taken[0].token));
    assert_eq!(write_down(&mut state)[0].1.low, 3);
    // At the end what was not started is nobody's suspect.
    assert_eq!(state.last(0), Some(Mark { low: 3, lease: 3 }));
}

#[test]
fn starts_no_further_than_the_window() {
    let mut state = filled(2, CLEAN, 0..4);
    let receiver = state.join();
    write_down(&mut state);
    let (one, two) = (state.take(receiver).unwrap(), state.take(receiver).unwrap());
    assert!(state.take(receiver).is_none());
    state.finish(two.token);
    assert!(state.take(receiver).is_none(), "the oldest holds it up");
    state.finish(one.token);
    assert!(state.take(receiver).is_none(), "and the committed offset, as others see it");
    write_down(&mut state);
    assert_eq!(state.take(receiver).unwrap().message.id, "2");
}

#[test]
fn what_others_may_have_started_is_not_first() {
    let mut state = filled(1000, Found { committed: Some(5), suspects: 7, lease: 7 }, 5..9);
    let receiver = state.join();
    write_down(&mut state);
    let firsts: Vec<bool> = (5..9).map(|_| state.take(receiver).unwrap().first).collect();
    assert_eq!(firsts, [false, false, true, true]);
    // Given up before the suspects are read, they stay suspects.
    let mut state = filled(1000, Found { committed: Some(5), suspects: 7, lease: 7 }, 5..5);
    assert_eq!(state.last(0), None);
    state.doubt();
    assert_eq!(write_down(&mut state), [(0, Mark { low: 5, lease: 7 })]);
    // Where nothing is known, nothing is written that would say more.
    let mut state = filled(1000, Found { committed: None, suspects: UNLEASED, lease: UNLEASED }, 3..4);
    let receiver = state.join();
    let taken = state.take(receiver).unwrap();
    assert!(!taken.first);
    state.finish(taken.token);
    assert_eq!(state.last(0), Some(Mark { low: 4, lease: UNLEASED }));
}

#[test]
fn a_stopped_process_counts_nothing_as_first_until_it_is_a_member_still() {
    let mut state = filled(1000, CLEAN, 0..3);
    let receiver = state.join();
    write_down(&mut state);
    state.doubt();
    assert!(state.is_urgent() && !state.take(receiver).unwrap().first);
    write_down(&mut state);
    assert!(state.take(receiver).unwrap().first);
}

#[test]
fn verdicts_on_what_was_taken_back_are_stale() {
    let mut state = filled(1000, CLEAN, 0..2);
    let (gone, receiver) = (state.join(), state.join());
    write_down(&mut state);
    let late = state.take(gone).unwrap().token;
    assert!(!state.leave(gone));
    let again = state.take(receiver).unwrap();
    assert!(!again.first && again.message.id == "0");
    assert!(!state.holds(late) && !state.finish(late) && !state.give_back(late));
    state.revoke(0);
    assert!(!state.finish(again.token));
    state.assign(0, CLEAN);
    assert!(!state.finish(again.token), "not even when it comes back");
    assert!(state.leave(receiver));
}

#[derive(Clone, Debug)]
enum Step {
    Read,
    Take,
    Finish(usize),
    GiveBack(usize),
    Commit(bool),
    Rest,
    /// The partition goes in good order, or is lost, and the next owner is this one.
    Move(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Read),
        4 => Just(Step::Take),
        4 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::GiveBack),
        2 => any::<bool>().prop_map(Step::Commit),
        1 => Just(Step::Rest),
        1 => any::<bool>().prop_map(Step::Move),
    ]
}

proptest! {
    /// Whatever happens: nothing unfinished is below what is committed, and nothing that was started before is first.
    #[test]
    fn loses_nothing_and_never_lies_about_first(window in 1_i64..12, steps in prop::collection::vec(step(), 1..300)) {
        let mut broker = Mark { low: 0, lease: 0 };
        let mut state = filled(window, CLEAN, 0..0);
        let receiver = state.join();
        let mut next = 0;
        let mut held: Vec<Taken> = Vec::new();
        let (mut started, mut finished) = (BTreeMap::new(), BTreeSet::new());
        for step in steps {
            match step {
                // Offsets have gaps, as those of transactions do.
                Step::Read if state.wants(0) => {
                    state.push(0, record(next));
                    next += 1 + next % 3;
                }
                Step::Read => {}
                Step::Take => if let Some(taken) = state.take(receiver) {
                    let offset = taken.token.offset;
                    prop_assert!(!(taken.first && started.contains_key(&offset)), "{} was started before", offset);
                    *started.entry(offset).or_insert(0) += 1;
                    held.push(taken);
                },
                Step::Finish(n) if !held.is_empty() => {
                    let taken = held.swap_remove(n % held.len());
                    if state.finish(taken.token) {
                        finished.insert(taken.token.offset);
                    }
                }
                Step::GiveBack(n) if !held.is_empty() => {
                    state.give_back(held.swap_remove(n % held.len()).token);
                }
                Step::Finish(_) | Step::GiveBack(_) => {}
                Step::Commit(arrives) => {
                    let marks = state.due();
                    state.sent(&marks);
                    if arrives && let [(_, mark)] = marks[..] {
                        broker = mark;
                    }
                    state.settled(&marks, arrives);
                }
                Step::Rest => state.wake_resting(),
                Step::Move(orderly) => {
                    if orderly && let Some(mark) = state.last(0) {
                        broker = mark;
                    }
                    state.revoke(0);
                    state.assign(0, Found { committed: Some(broker.low), suspects: broker.lease, lease: broker.lease });
                    // The gap after a record belongs to nobody.
                    next = broker.low + i64::from(broker.low % 3 == 2);
                }
            }
            let below = started.keys().take_while(|offset| **offset < broker.low);
            for offset in below {
                prop_assert!(finished.contains(offset), "{} is committed and not finished", offset);
            }
        }
    }
}
