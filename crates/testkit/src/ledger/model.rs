//! The ledger's rules in their plainest form, to compare implementations with: lists, no indexes, no sharing.

use std::time::Duration;

use stoq_api::ledger::{Admission, Admitted, ChildRecord, Claim, Completeness, FINISH_LEASE, FrozenScan, Settled};
use stoq_api::task::ScanHead;
use stoq_api::{Outcome, PayloadId, ScanId, Timestamp};

/// One scan.
#[derive(Default)]
pub(super) struct Model {
    state: State,
    attempts: Vec<PayloadId>,
}

#[derive(Default)]
enum State {
    #[default]
    Unknown,
    Known(Box<Known>),
    Closed(Timestamp),
}

struct Known {
    head: ScanHead,
    due: Timestamp,
    payloads: Vec<Payload>,
    charged: Vec<u64>,
    frozen: Option<(Completeness, Timestamp)>,
}

struct Payload {
    id: PayloadId,
    admitted_by: Option<PayloadId>,
    outcome: Option<Outcome>,
}

impl Model {
    pub(super) fn open(&mut self, head: Option<&ScanHead>, now: Timestamp) {
        if let State::Closed(until) = self.state
            && until <= now
        {
            self.state = State::Unknown;
        }
        if let (State::Unknown, Some(head)) = (&self.state, head) {
            let root = |r: &stoq_api::RootRef| Payload { id: r.id, admitted_by: None, outcome: None };
            self.state = State::Known(Box::new(Known {
                head: head.clone(),
                due: now.after(head.budgets.deadline()),
                payloads: head.roots.iter().map(root).collect(),
                charged: Vec::new(),
                frozen: None,
            }));
        }
    }

    pub(super) fn admit(
        &mut self,
        head: Option<&ScanHead>,
        parent: PayloadId,
        children: &[ChildRecord],
        now: Timestamp,
    ) -> Admitted {
        self.open(head, now);
        match &mut self.state {
            State::Unknown => Admitted::Unknown,
            State::Closed(_) => Admitted::Closed,
            State::Known(known) if known.frozen.is_some() => Admitted::Frozen,
            State::Known(known) => {
                known.take_in(parent, None);
                let admissions: Vec<_> = children.iter().map(|c| known.admit(parent, c)).collect();
                if admissions.contains(&Admission::New) {
                    known.due = known.due.max(now.after(known.head.budgets.deadline()));
                }
                Admitted::Open(admissions)
            }
        }
    }

    pub(super) fn settle(
        &mut self,
        head: Option<&ScanHead>,
        outcome: &Outcome,
        children: &[PayloadId],
        now: Timestamp,
    ) -> Settled {
        self.open(head, now);
        match &mut self.state {
            State::Unknown => Settled::Unknown,
            State::Closed(_) => Settled::Closed,
            State::Known(known) if known.frozen.is_some() => Settled::Frozen,
            State::Known(known) => known.settle(outcome, children, now),
        }
    }

    pub(super) fn begin(&mut self, payload: PayloadId, now: Timestamp) -> u32 {
        self.open(None, now);
        if matches!(self.state, State::Closed(_)) {
            return 0;
        }
        self.attempts.push(payload);
        self.attempts.iter().filter(|p| **p == payload).count() as u32
    }

    pub(super) fn survived(&mut self, payload: PayloadId) {
        if let Some(at) = self.attempts.iter().position(|p| *p == payload) {
            self.attempts.remove(at);
        }
    }

    pub(super) fn spent(&self) -> Option<(u64, u64)> {
        let State::Known(known) = &self.state else { return None };
        Some((known.charged.len() as u64, known.charged.iter().sum()))
    }

    pub(super) fn frozen(&self, scan_id: ScanId) -> Option<FrozenScan<Outcome>> {
        let State::Known(known) = &self.state else { return None };
        let (completeness, _) = known.frozen?;
        let missing = known.payloads.iter().filter(|p| p.outcome.is_none()).map(|p| p.id);
        Some(FrozenScan {
            scan_id,
            head: known.head.clone().into(),
            completeness,
            outcomes: known.payloads.iter().filter_map(|p| p.outcome.clone()).collect(),
            missing: missing.collect(),
        })
    }

    pub(super) fn close(&mut self, keep: Duration, now: Timestamp) {
        if let State::Known(known) = &self.state
            && known.frozen.is_some()
        {
            self.state = State::Closed(now.after(keep));
            self.attempts.clear();
        }
    }

    /// (end of its time or lease, frozen), if overdue.
    pub(super) fn overdue(&self, horizon: Timestamp, now: Timestamp) -> Option<(Timestamp, bool)> {
        let State::Known(known) = &self.state else { return None };
        match known.frozen {
            Some((_, until)) => (until <= now).then_some((until, true)),
            None => (known.due < horizon).then_some((known.due, false)),
        }
    }

    pub(super) fn freeze(&mut self, lease: Duration, now: Timestamp) -> Claim {
        let State::Known(known) = &mut self.state else { return Claim::Gone };
        let completeness = match known.frozen {
            Some((_, until)) if now < until => return Claim::Held,
            Some((completeness, _)) => completeness,
            None => Completeness::Partial,
        };
        known.frozen = Some((completeness, now.after(lease)));
        Claim::Taken(completeness)
    }
}

impl Known {
    fn root_bytes(&self) -> u64 {
        self.head.roots.iter().map(|r| r.size).sum()
    }

    fn take_in(&mut self, id: PayloadId, admitted_by: Option<PayloadId>) {
        if !self.payloads.iter().any(|p| p.id == id) {
            self.payloads.push(Payload { id, admitted_by, outcome: None });
        }
    }

    fn admit(&mut self, parent: PayloadId, child: &ChildRecord) -> Admission {
        if let Some(known) = self.payloads.iter().find(|p| p.id == child.id) {
            let own = known.admitted_by == Some(parent);
            return if known.outcome.is_some() { Admission::Settled } else { Admission::Known { own } };
        }
        let (payloads, bytes) = (self.charged.len() as u64 + 1, self.charged.iter().sum::<u64>() + child.size);
        if let Some(kind) = self.head.budgets.broken_by(payloads, bytes, self.root_bytes()) {
            return Admission::Refused(kind);
        }
        self.charged.push(child.size);
        self.payloads.push(Payload { id: child.id, admitted_by: Some(parent), outcome: None });
        Admission::New
    }

    fn settle(&mut self, outcome: &Outcome, children: &[PayloadId], now: Timestamp) -> Settled {
        self.take_in(outcome.payload_id, None);
        for payload in &mut self.payloads {
            if payload.id == outcome.payload_id && payload.outcome.is_none() {
                payload.outcome = Some(outcome.clone());
            }
        }
        children.iter().for_each(|child| self.take_in(*child, Some(outcome.payload_id)));
        if self.payloads.iter().all(|p| p.outcome.is_some()) {
            self.frozen = Some((Completeness::Complete, now.after(FINISH_LEASE)));
            return Settled::Frozen;
        }
        let own = |p: &&Payload| p.outcome.is_none() && p.admitted_by == Some(outcome.payload_id);
        Settled::Open { unsettled: self.payloads.iter().filter(own).map(|p| p.id).collect() }
    }
}
