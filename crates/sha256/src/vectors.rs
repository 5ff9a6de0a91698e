//! The compression function in Wasm: the schedule in vectors, the rounds in plain words.

use core::arch::wasm32::{
    i8x16_shuffle, u32x4, u32x4_add, u32x4_shl, u32x4_shr, u32x4_shuffle, u64x2_shr, v128,
    v128_load, v128_store, v128_xor,
};

use crate::known::ROUND;

/// Takes whole blocks into the state.
#[target_feature(enable = "simd128")]
pub fn compress(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
    for block in blocks {
        let mut words = load(block);
        let mut working = *state;
        // No loop, here and in the rounds: carrying all that from turn to turn costs a fifth of the whole.
        rounds(&mut working, &summed(&words, &ROUND[0]));
        words = next(words);
        rounds(&mut working, &summed(&words, &ROUND[1]));
        words = next(words);
        rounds(&mut working, &summed(&words, &ROUND[2]));
        words = next(words);
        rounds(&mut working, &summed(&words, &ROUND[3]));
        for (word, worked) in state.iter_mut().zip(working) {
            *word = word.wrapping_add(worked);
        }
    }
}

/// Sixteen words, first to last.
type Words = [v128; 4];

/// The words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "simd128")]
fn load(block: &[u8; 64]) -> Words {
    let swapped = |at: usize| {
        // SAFETY: 16 bytes from one of the places 0, 16, 32, 48 lie in the block.
        let bytes = unsafe { v128_load(block.as_ptr().add(at).cast()) };
        i8x16_shuffle::<3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12>(bytes, bytes)
    };
    [swapped(0), swapped(16), swapped(32), swapped(48)]
}

/// What sixteen rounds add: their words and their constants.
#[inline]
#[target_feature(enable = "simd128")]
fn summed(words: &Words, constants: &[u32; 16]) -> [u32; 16] {
    let mut sums = [0; 16];
    for i in 0..4 {
        // SAFETY: four words from one of the places 0, 4, 8, 12 lie in the sixteen.
        unsafe {
            let constants = v128_load(constants.as_ptr().add(4 * i).cast());
            let place = sums.as_mut_ptr().add(4 * i);
            v128_store(place.cast(), u32x4_add(words[i], constants));
        }
    }
    sums
}

/// The sixteen words that follow.
#[inline]
#[target_feature(enable = "simd128")]
fn next([a, b, c, d]: Words) -> Words {
    let e = four_more(a, b, c, d);
    let f = four_more(b, c, d, e);
    let g = four_more(c, d, e, f);
    let h = four_more(d, e, f, g);
    [e, f, g, h]
}

/// The four words that follow sixteen. The last two of them need the first two.
#[inline]
#[target_feature(enable = "simd128")]
fn four_more(a: v128, b: v128, c: v128, d: v128) -> v128 {
    let zero = u32x4(0, 0, 0, 0);
    let fifteen_before = u32x4_shuffle::<1, 2, 3, 4>(a, b);
    let seven_before = u32x4_shuffle::<1, 2, 3, 4>(c, d);
    let sum = u32x4_add(u32x4_add(a, sigma_0(fifteen_before)), seven_before);
    let first_two = sigma_1(u32x4_shuffle::<2, 2, 3, 3>(d, d));
    let sum = u32x4_add(sum, u32x4_shuffle::<0, 2, 4, 4>(first_two, zero));
    let last_two = sigma_1(u32x4_shuffle::<0, 0, 1, 1>(sum, sum));
    u32x4_add(sum, u32x4_shuffle::<4, 4, 0, 2>(last_two, zero))
}

/// Of four words.
#[inline]
#[target_feature(enable = "simd128")]
fn sigma_0(x: v128) -> v128 {
    let by_7 = v128_xor(u32x4_shr(x, 7), u32x4_shl(x, 25));
    let by_18 = v128_xor(u32x4_shr(x, 18), u32x4_shl(x, 14));
    v128_xor(v128_xor(by_7, by_18), u32x4_shr(x, 3))
}

/// Of two words, each of which stands twice in 64 bits: so a shift rotates it. The results are in the lower
/// halves.
#[inline]
#[target_feature(enable = "simd128")]
fn sigma_1(x: v128) -> v128 {
    let rotated = v128_xor(u64x2_shr(x, 17), u64x2_shr(x, 19));
    v128_xor(rotated, u32x4_shr(x, 10))
}

/// Sixteen rounds.
#[inline]
fn rounds(working: &mut [u32; 8], sums: &[u32; 16]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *working;
    // Of the round before: where its first and second words differ, which are now the second and third.
    let mut differ = b ^ c;
    macro_rules! round {
        ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $i:expr) => {
            let chosen = $g ^ ($e & ($f ^ $g));
            let sum = $h
                .wrapping_add(sums[$i])
                .wrapping_add($e.rotate_right(6) ^ $e.rotate_right(11) ^ $e.rotate_right(25))
                .wrapping_add(chosen);
            $d = $d.wrapping_add(sum);
            let differ_now = $a ^ $b;
            // Two of three agree on it: where the first two differ, the third decides.
            let majority = (differ_now & differ) ^ $b;
            #[allow(unused_assignments, reason = "the last of the rounds has no successor")]
            {
                differ = differ_now;
            }
            $h = sum
                .wrapping_add($a.rotate_right(2) ^ $a.rotate_right(13) ^ $a.rotate_right(22))
                .wrapping_add(majority);
        };
    }
    round!(a b c d e f g h, 0);
    round!(h a b c d e f g, 1);
    round!(g h a b c d e f, 2);
    round!(f g h a b c d e, 3);
    round!(e f g h a b c d, 4);
    round!(d e f g h a b c, 5);
    round!(c d e f g h a b, 6);
    round!(b c d e f g h a, 7);
    round!(a b c d e f g h, 8);
    round!(h a b c d e f g, 9);
    round!(g h a b c d e f, 10);
    round!(f g h a b c d e, 11);
    round!(e f g h a b c d, 12);
    round!(d e f g h a b c, 13);
    round!(c d e f g h a b, 14);
    round!(b c d e f g h a, 15);
    *working = [a, b, c, d, e, f, g, h];
}
