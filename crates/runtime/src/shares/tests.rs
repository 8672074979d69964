//! Shares in virtual time: servers that take whoever is next, parties that always want more, or sometimes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// A party of a simulation.
#[derive(Clone, Debug)]
struct Demand {
    weight: u32,
    /// What its uses cost, in turn.
    costs: Vec<u64>,
    /// From when on it wants more, and until when.
    wants: (u64, u64),
}

/// What became of it.
#[derive(Debug, Default)]
struct Outcome {
    /// Time that each party used, of what it began within the window.
    used: Vec<u64>,
    /// The longest that a party that was new waited for its first turn.
    first: Vec<u64>,
}

/// Lets `servers` serve until `end`.
fn simulate(servers: usize, demands: &[Demand], window: (u64, u64)) -> Outcome {
    let mut shares = Shares::new(demands.iter().map(|d| d.weight));
    let mut served = vec![0; demands.len()];
    let mut back = vec![false; demands.len()];
    let mut outcome = Outcome { used: vec![0; demands.len()], first: vec![u64::MAX; demands.len()] };
    // When each server is free, and what it ends then.
    let mut free: BinaryHeap<Reverse<(u64, usize)>> = (0..servers).map(|s| Reverse((0, s))).collect();
    let mut at_work: Vec<Option<(Turn, u64)>> = (0..servers).map(|_| None).collect();
    while let Some(Reverse((now, server))) = free.pop() {
        if let Some((turn, cost)) = at_work[server].take() {
            shares.end(turn, cost);
        }
        if now >= window.1 {
            continue;
        }
        for (party, demand) in demands.iter().enumerate() {
            if demand.wants.0 <= now && !back[party] {
                back[party] = true;
                shares.come_back(party);
            }
        }
        let wants = |party: &usize| (demands[*party].wants.0..demands[*party].wants.1).contains(&now);
        let Some(party) = shares.next((0..demands.len()).filter(wants)) else {
            // Nobody wants anything before the next one comes.
            let next = demands.iter().map(|d| d.wants.0).filter(|start| *start > now).min();
            free.extend(next.map(|next| Reverse((next, server))));
            continue;
        };
        let demand = &demands[party];
        let cost = demand.costs[served[party] % demand.costs.len()];
        served[party] += 1;
        outcome.first[party] = outcome.first[party].min(now - demand.wants.0);
        if now >= window.0 {
            outcome.used[party] += cost;
        }
        at_work[server] = Some((shares.begin(party), cost));
        free.push(Reverse((now + cost, server)));
    }
    outcome
}

const LONG: u64 = 50_000;
const MAX_COST: u64 = 100;

fn always(weight: u32, costs: Vec<u64>) -> Demand {
    Demand { weight, costs, wants: (0, u64::MAX) }
}

fn demand() -> impl Strategy<Value = Demand> {
    (1..=50_u32, proptest::collection::vec(1..=MAX_COST, 1..20)).prop_map(|(weight, costs)| always(weight, costs))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Who always wants more gets it by weight, whatever its uses cost: no two parties are ever further apart than what
    /// all servers may have in hand at one moment. Nobody starves, and no time is lost.
    #[test]
    fn shares_are_as_weights(servers in 1..8_usize, demands in proptest::collection::vec(demand(), 2..7)) {
        let outcome = simulate(servers, &demands, (0, LONG));
        let per_weight = |party: usize| outcome.used[party] as f64 / f64::from(demands[party].weight);
        for a in 0..demands.len() {
            for b in 0..demands.len() {
                // A party with much weight cannot use more than all servers, nor can its mean be known at once.
                let slack = (servers as f64 + 2.0) * MAX_COST as f64
                    * (1.0 / f64::from(demands[a].weight) + 1.0 / f64::from(demands[b].weight));
                prop_assert!(per_weight(a) - per_weight(b) <= slack, "{a} and {b}: {outcome:?} of {demands:?}");
            }
        }
        let all: u64 = outcome.used.iter().sum();
        prop_assert!(all >= LONG * servers as u64, "time was lost: {outcome:?}");
    }

    /// A newcomer is served as soon as a server is free, however long others had all of it, and gets no more than its
    /// share for having been away.
    #[test]
    fn newcomers_neither_wait_nor_catch_up(
        servers in 1..8_usize,
        flood in demand(),
        newcomer in demand(),
        after in 1_000..50_000_u64,
    ) {
        let late = Demand { wants: (after, u64::MAX), ..newcomer };
        let outcome = simulate(servers, &[flood.clone(), late.clone()], (after, after + LONG));
        prop_assert!(outcome.first[1] <= MAX_COST, "it waited {} ({outcome:?})", outcome.first[1]);
        let share = |party: usize, weight: u32| outcome.used[party] as f64 / f64::from(weight);
        let slack = (servers as f64 + 2.0) * MAX_COST as f64 * (1.0 / f64::from(flood.weight) + 1.0 / f64::from(late.weight));
        prop_assert!((share(0, flood.weight) - share(1, late.weight)).abs() <= slack, "{outcome:?}");
    }

    /// What one leaves is the others', and there is no debt for having used it.
    #[test]
    fn what_nobody_else_wants_is_free(servers in 1..8_usize, one in demand(), other in demand()) {
        let leaving = Demand { wants: (0, LONG), ..one };
        let outcome = simulate(servers, &[leaving, other], (LONG + MAX_COST, 2 * LONG));
        prop_assert_eq!(outcome.used[0], 0);
        prop_assert!(outcome.used[1] >= (LONG - 2 * MAX_COST) * servers as u64);
    }
}

#[test]
fn turns_of_the_same_price_go_round() {
    let mut shares = Shares::new([1, 1, 2]);
    let mut order = Vec::new();
    for _ in 0..8 {
        let party = shares.next(0..3).expect("three want something");
        let turn = shares.begin(party);
        assert_eq!(turn.party(), party);
        shares.end(turn, 10);
        order.push(party);
    }
    let count = |party| order.iter().filter(|p| **p == party).count();
    assert_eq!((count(0), count(1), count(2)), (2, 2, 4), "{order:?}");
    assert!(shares.next([]).is_none());
}
