//! The steps of MD5, over all lanes at once.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u32x16};

use crate::Digest;

/// Contents that are worked on at the same time: the 32 bit words of the widest vectors.
pub const LANES: usize = 16;

/// What MD5 works on.
pub(crate) type Block = [u8; 64];

/// The words A, B, C and D before the first block (RFC 1321, 3.3).
const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// By how much each of four steps in turn rotates, for each round (RFC 1321, 3.4).
const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// The table T of RFC 1321, 3.4: of each step n from 1 on the whole part of 2^32 times |sin n|.
const SINES: [[u32; 16]; 4] = [
    [
        0xd76a_a478,
        0xe8c7_b756,
        0x2420_70db,
        0xc1bd_ceee,
        0xf57c_0faf,
        0x4787_c62a,
        0xa830_4613,
        0xfd46_9501,
        0x6980_98d8,
        0x8b44_f7af,
        0xffff_5bb1,
        0x895c_d7be,
        0x6b90_1122,
        0xfd98_7193,
        0xa679_438e,
        0x49b4_0821,
    ],
    [
        0xf61e_2562,
        0xc040_b340,
        0x265e_5a51,
        0xe9b6_c7aa,
        0xd62f_105d,
        0x0244_1453,
        0xd8a1_e681,
        0xe7d3_fbc8,
        0x21e1_cde6,
        0xc337_07d6,
        0xf4d5_0d87,
        0x455a_14ed,
        0xa9e3_e905,
        0xfcef_a3f8,
        0x676f_02d9,
        0x8d2a_4c8a,
    ],
    [
        0xfffa_3942,
        0x8771_f681,
        0x6d9d_6122,
        0xfde5_380c,
        0xa4be_ea44,
        0x4bde_cfa9,
        0xf6bb_4b60,
        0xbebf_bc70,
        0x289b_7ec6,
        0xeaa1_27fa,
        0xd4ef_3085,
        0x0488_1d05,
        0xd9d4_d039,
        0xe6db_99e5,
        0x1fa2_7cf8,
        0xc4ac_5665,
    ],
    [
        0xf429_2244,
        0x432a_ff97,
        0xab94_23a7,
        0xfc93_a039,
        0x655b_59c3,
        0x8f0c_cc92,
        0xffef_f47d,
        0x8584_5dd1,
        0x6fa8_7e4f,
        0xfe2c_e6e0,
        0xa301_4314,
        0x4e08_11a1,
        0xf753_7e82,
        0xbd3a_f235,
        0x2ad7_d2bb,
        0xeb86_d391,
    ],
];

/// Whether this processor has vectors that we know. Without, the lanes would take their steps one after the other.
pub(crate) fn has_vectors() -> bool {
    !Level::new().is_fallback()
}

/// The words A, B, C and D of every lane.
pub(crate) struct States([[u32; LANES]; 4]);

impl Default for States {
    fn default() -> Self {
        Self(START.map(|word| [word; LANES]))
    }
}

impl States {
    /// Has a lane begin with a new content.
    pub(crate) fn reset(&mut self, lane: usize) {
        self.0.iter_mut().zip(START).for_each(|(words, start)| words[lane] = start);
    }

    /// The digest of a lane that has taken its last block.
    pub(crate) fn digest(&self, lane: usize) -> Digest {
        let mut digest = Digest::default();
        let (places, _) = digest.as_chunks_mut();
        places.iter_mut().zip(&self.0).for_each(|(place, words)| *place = words[lane].to_le_bytes());
        digest
    }

    /// Has every lane take its blocks; all have the same number.
    pub(crate) fn take(&mut self, blocks: &[&[Block]; LANES]) {
        // What the processor can do is asked once in a process and then known.
        dispatch!(Level::new(), simd => take(simd, &mut self.0, blocks));
    }
}

#[inline(always)]
fn take<S: Simd>(simd: S, states: &mut [[u32; LANES]; 4], blocks: &[&[Block]; LANES]) {
    let mut state: [u32x16<S>; 4] = std::array::from_fn(|word| u32x16::from_slice(simd, &states[word]));
    let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or_default();
    #[expect(clippy::needless_range_loop, reason = "it is a place in the blocks of each lane")]
    for at in 0..count {
        let words = across(std::array::from_fn(|lane| words(simd, &blocks[lane][at])));
        let before = state;
        round::<S, 0>(&mut state, &words);
        round::<S, 1>(&mut state, &words);
        round::<S, 2>(&mut state, &words);
        round::<S, 3>(&mut state, &words);
        state.iter_mut().zip(before).for_each(|(word, before)| *word += before);
    }
    state.iter().zip(states).for_each(|(word, place)| word.store_slice(place));
}

/// The words of one lane's block.
#[inline(always)]
fn words<S: Simd>(simd: S, block: &Block) -> u32x16<S> {
    let (bytes, _) = block.as_chunks();
    let words: [u32; LANES] = std::array::from_fn(|at| u32::from_le_bytes(bytes[at]));
    u32x16::from_slice(simd, &words)
}

/// From a vector for each lane to one for each word: rows become columns. Dealing the rows out like two halves of a deck
/// of cards, four times, brings each word to where it belongs.
#[inline(always)]
fn across<S: Simd>(mut rows: [u32x16<S>; LANES]) -> [u32x16<S>; LANES] {
    for _ in 0..LANES.ilog2() {
        let half = rows;
        for at in 0..LANES / 2 {
            rows[2 * at] = half[at].zip_low(half[at + LANES / 2]);
            rows[2 * at + 1] = half[at].zip_high(half[at + LANES / 2]);
        }
    }
    rows
}

/// A round, written out step by step: only then does a rotation know by how much, which saves a third of the time.
#[inline(always)]
fn round<S: Simd, const ROUND: usize>(state: &mut [u32x16<S>; 4], words: &[u32x16<S>; LANES]) {
    macro_rules! steps {
        ($($step:literal)*) => { $(step::<S, ROUND, $step>(state, words);)* };
    }
    steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

#[inline(always)]
fn step<S: Simd, const ROUND: usize, const STEP: usize>(state: &mut [u32x16<S>; 4], words: &[u32x16<S>; LANES]) {
    let [a, b, c, d] = *state;
    let (word, mixed) = match ROUND {
        0 => (STEP, (b & c) | (!b & d)),
        1 => (5 * STEP + 1, (d & b) | (!d & c)),
        2 => (3 * STEP + 5, b ^ c ^ d),
        _ => (7 * STEP, c ^ (b | !d)),
    };
    let sum = a + words[word % 16] + SINES[ROUND][STEP] + mixed;
    let shift = SHIFTS[ROUND][STEP % 4];
    *state = [d, ((sum << shift) | (sum >> (32 - shift))) + b, b, c];
}
