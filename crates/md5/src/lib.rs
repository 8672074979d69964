//! MD5 (RFC 1321) of many contents side by side.
//!
//! Each step of MD5 waits for the one before it and works on 32 bits, so that a single content leaves most of a processor
//! idle. Here each of [`LANES`] contents has a lane of a vector: all of them take about the time of the longest one.
//! SHA-1 and SHA-256 have instructions of their own and gain little from this.
//!
//! A crate of its own, so that it is optimised where all else is built for tests.

mod kernel;
mod lane;

pub use self::kernel::LANES;
use self::lane::{Lane, Message};

/// A digest as RFC 1321 writes it down.
pub type Digest = [u8; 16];

/// What a step over all lanes costs at most, in steps of one content by itself: with vectors of 512 bits it is a little
/// more than one, of 256 bits not quite two, and of 128 bits nearly three.
const STEP_COST: usize = 3;

/// The digests of all contents in their order, or nothing if one after the other is as quick: there are too few, one is
/// longer than most of the others together, or the processor has no vectors.
pub fn side_by_side(contents: &[&[u8]]) -> Option<Vec<Digest>> {
    if !kernel::has_vectors() {
        return None;
    }
    let messages: Vec<Message<'_>> = contents.iter().map(|content| Message::new(content)).collect();
    let longest = messages.iter().map(Message::blocks).max()?;
    let all: usize = messages.iter().map(Message::blocks).sum();
    (all >= longest.saturating_mul(STEP_COST)).then(|| digests(&messages))
}

fn digests(messages: &[Message<'_>]) -> Vec<Digest> {
    let mut digests = vec![Digest::default(); messages.len()];
    // The longest begin first, so that the last ones to end do so at about the same time.
    let mut waiting: Vec<(usize, &Message<'_>)> = messages.iter().enumerate().collect();
    waiting.sort_by_key(|(_, message)| message.blocks());
    let mut lanes: [Lane<'_>; LANES] = std::array::from_fn(|_| Lane::default());
    let mut states = kernel::States::default();
    loop {
        for (place, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| lane.is_over()) {
            if let Some(number) = lane.number() {
                digests[number] = states.digest(place);
            }
            *lane = waiting.pop().map(|(number, message)| Lane::of(number, message)).unwrap_or_default();
            states.reset(place);
        }
        // A lane without a content repeats the blocks of one that has one.
        let Some(busy) = lanes.iter().map(Lane::next).find(|next| !next.is_empty()) else { return digests };
        let next: [&[kernel::Block]; LANES] = std::array::from_fn(|place| match lanes[place].next() {
            [] => busy,
            next => next,
        });
        let count = next.iter().map(|next| next.len()).min().unwrap_or_default();
        states.take(&next.map(|next| &next[..count]));
        lanes.iter_mut().for_each(|lane| lane.took(count));
    }
}

#[cfg(test)]
mod tests {
    use md5::Digest as _;
    use proptest::prelude::*;

    use super::*;

    fn checked(contents: &[Vec<u8>]) {
        let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        let messages: Vec<Message<'_>> = contents.iter().map(|content| Message::new(content)).collect();
        let wanted: Vec<Digest> = contents.iter().map(|content| md5::Md5::digest(content).into()).collect();
        assert_eq!(digests(&messages), wanted);
        assert!(side_by_side(&contents).is_none_or(|said| said == wanted));
    }

    #[test]
    fn every_length_around_a_block_is_padded_as_it_should_be() {
        let contents: Vec<Vec<u8>> = (0..300).map(|len| (0..len).map(|n| n as u8).collect()).collect();
        checked(&contents);
        contents.iter().for_each(|content| checked(std::slice::from_ref(content)));
    }

    #[test]
    fn few_or_uneven_contents_are_left_to_others() {
        let (long, short) = (vec![1; 100_000], vec![2; 1_000]);
        assert!(side_by_side(&[]).is_none());
        assert!(side_by_side(&[&long, &long]).is_none());
        let mut uneven = vec![short.as_slice(); 32];
        uneven.push(&long);
        assert!(side_by_side(&uneven).is_none());
        assert_eq!(side_by_side(&[long.as_slice(); 4]).is_some(), kernel::has_vectors());
    }

    proptest! {
        #[test]
        fn digests_are_those_of_one_by_one(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2_000), 0..40)
        ) {
            checked(&contents);
        }
    }
}
