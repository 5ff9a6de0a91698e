//! SHA-256 as the standard has it, word by word, which the compiler can compute.

use crate::{BLOCK, INITIAL, LENGTH_AT};

/// The constants of the 64 rounds (FIPS 180-4, section 4.2.2).
pub static ROUND: [[u32; 16]; 4] = [
    [
        0x428a_2f98,
        0x7137_4491,
        0xb5c0_fbcf,
        0xe9b5_dba5,
        0x3956_c25b,
        0x59f1_11f1,
        0x923f_82a4,
        0xab1c_5ed5,
        0xd807_aa98,
        0x1283_5b01,
        0x2431_85be,
        0x550c_7dc3,
        0x72be_5d74,
        0x80de_b1fe,
        0x9bdc_06a7,
        0xc19b_f174,
    ],
    [
        0xe49b_69c1,
        0xefbe_4786,
        0x0fc1_9dc6,
        0x240c_a1cc,
        0x2de9_2c6f,
        0x4a74_84aa,
        0x5cb0_a9dc,
        0x76f9_88da,
        0x983e_5152,
        0xa831_c66d,
        0xb003_27c8,
        0xbf59_7fc7,
        0xc6e0_0bf3,
        0xd5a7_9147,
        0x06ca_6351,
        0x1429_2967,
    ],
    [
        0x27b7_0a85,
        0x2e1b_2138,
        0x4d2c_6dfc,
        0x5338_0d13,
        0x650a_7354,
        0x766a_0abb,
        0x81c2_c92e,
        0x9272_2c85,
        0xa2bf_e8a1,
        0xa81a_664b,
        0xc24b_8b70,
        0xc76c_51a3,
        0xd192_e819,
        0xd699_0624,
        0xf40e_3585,
        0x106a_a070,
    ],
    [
        0x19a4_c116,
        0x1e37_6c08,
        0x2748_774c,
        0x34b0_bcb5,
        0x391c_0cb3,
        0x4ed8_aa4a,
        0x5b9c_ca4f,
        0x682e_6ff3,
        0x748f_82ee,
        0x78a5_636f,
        0x84c8_7814,
        0x8cc7_0208,
        0x90be_fffa,
        0xa450_6ceb,
        0xbef9_a3f7,
        0xc671_78f2,
    ],
];

/// The hash of one padded message.
pub const fn sha256(bytes: &[u8]) -> [u8; 32] {
    let len = bytes.len();
    let blocks = (len + 1 + (BLOCK - LENGTH_AT)).div_ceil(BLOCK);
    let bits = (len as u64 * 8).to_be_bytes();
    let mut state = INITIAL;
    let mut at = 0;
    while at < blocks * BLOCK {
        let mut block = [0; BLOCK];
        let mut i = 0;
        while i < BLOCK {
            block[i] = match at + i {
                place if place < len => bytes[place],
                place if place == len => 0x80,
                place if place >= blocks * BLOCK - 8 => bits[place + 8 - blocks * BLOCK],
                _ => 0,
            };
            i += 1;
        }
        state = compress(state, &block);
        at += BLOCK;
    }
    let mut hash = [0; 32];
    let mut i = 0;
    while i < 32 {
        hash[i] = state[i / 4].to_be_bytes()[i % 4];
        i += 1;
    }
    hash
}

/// FIPS 180-4, section 6.2.2.
const fn compress(state: [u32; 8], block: &[u8; BLOCK]) -> [u32; 8] {
    let mut words = [0u32; 64];
    let mut t = 0;
    while t < 64 {
        words[t] = if t < 16 {
            let at = 4 * t;
            u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        } else {
            let (x, y) = (words[t - 15], words[t - 2]);
            let first = x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3);
            let second = y.rotate_right(17) ^ y.rotate_right(19) ^ (y >> 10);
            second
                .wrapping_add(words[t - 7])
                .wrapping_add(first)
                .wrapping_add(words[t - 16])
        };
        t += 1;
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    let mut t = 0;
    while t < 64 {
        let sum = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let one = h
            .wrapping_add(sum)
            .wrapping_add((e & f) ^ (!e & g))
            .wrapping_add(ROUND[t / 16][t % 16])
            .wrapping_add(words[t]);
        let sum = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let two = sum.wrapping_add((a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e) = (g, f, e, d.wrapping_add(one));
        (d, c, b, a) = (c, b, a, one.wrapping_add(two));
        t += 1;
    }
    let [i, j, k, l, m, n, o, p] = state;
    [
        a.wrapping_add(i),
        b.wrapping_add(j),
        c.wrapping_add(k),
        d.wrapping_add(l),
        e.wrapping_add(m),
        f.wrapping_add(n),
        g.wrapping_add(o),
        h.wrapping_add(p),
    ]
}
