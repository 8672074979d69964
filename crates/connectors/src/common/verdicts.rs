//! From verdicts of documents to verdicts of the items that they were made of.

use stoq_api::plugin::Verdict;

/// Counts what becomes of a batch's documents.
///
/// An item is delivered once all of its documents are. While one of them may still be delivered, the item is to be tried
/// again, even if another one was refused for good: first everything that can be safe is, then the item goes to the dead
/// lane. A document of which nothing was heard is one to try again.
pub struct Tally(Vec<One>);

#[derive(Default)]
struct One {
    open: usize,
    refused: usize,
    retry: Option<String>,
    rejected: Option<String>,
}

impl Tally {
    /// For a batch of so many items.
    pub fn new(items: usize) -> Self {
        Self(std::iter::repeat_with(One::default).take(items).collect())
    }

    /// One more document was made of the item.
    pub fn made(&mut self, item: usize) {
        self.0[item].open += 1;
    }

    /// A document of the item is safe.
    pub fn delivered(&mut self, item: usize) {
        self.0[item].open = self.0[item].open.saturating_sub(1);
    }

    /// A document of the item is to be sent again.
    pub fn retry(&mut self, item: usize, reason: impl FnOnce() -> String) {
        self.0[item].retry.get_or_insert_with(reason);
    }

    /// A document of the item is refused for good; `reason` names it.
    pub fn rejected(&mut self, item: usize, reason: String) {
        let one = &mut self.0[item];
        one.open = one.open.saturating_sub(1);
        one.refused += 1;
        one.rejected.get_or_insert(reason);
    }

    /// What that means for the items, in order.
    pub fn verdicts(self) -> Vec<Verdict> {
        self.0.into_iter().map(One::verdict).collect()
    }
}

impl One {
    fn verdict(self) -> Verdict {
        match (self.open, self.rejected) {
            (0, None) => Verdict::Delivered,
            (0, Some(reason)) if self.refused > 1 => {
                Verdict::Rejected(format!("{reason} (and {} more documents)", self.refused - 1))
            }
            (0, Some(reason)) => Verdict::Rejected(reason),
            (open, _) => {
                let unheard = || format!("nothing was heard of {open} documents");
                Verdict::Retry(self.retry.unwrap_or_else(unheard))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_what_its_documents_are() {
        let mut tally = Tally::new(5);
        for (item, documents) in [2, 2, 2, 1, 0].into_iter().enumerate() {
            (0..documents).for_each(|_| tally.made(item));
        }
        (0..2).for_each(|_| tally.delivered(0));
        tally.delivered(1);
        tally.rejected(1, "a: no".to_owned());
        tally.rejected(2, "b: no".to_owned());
        tally.retry(2, || "busy".to_owned());
        let verdicts = tally.verdicts();
        let retry = |why: &str| Verdict::Retry(why.to_owned());
        let unheard = retry("nothing was heard of 1 documents");
        let rejected = Verdict::Rejected("a: no".to_owned());
        assert_eq!(verdicts, [Verdict::Delivered, rejected, retry("busy"), unheard, Verdict::Delivered]);
    }
}
