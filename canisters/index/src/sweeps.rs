//! Rows that are of no use any more, removed a slice at a time.

use candid::Principal;
use ic_stable_structures::StableBTreeMap;

use crate::{Index, memory::Memory};

/// Rows looked at in one turn.
const ROWS_PER_TURN: usize = 1_000;

const LEASES: u8 = 1;
const HOMES: u8 = 2;

/// (what, whose): the leases of a user's incarnations that are gone, or the homes that a bucket, in
/// telling its whole state, did not name.
pub struct Sweeps {
    due: StableBTreeMap<(u8, Principal), (), Memory>,
}

impl Sweeps {
    pub fn init(memory: Memory) -> Self {
        Self {
            due: StableBTreeMap::init(memory),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// What is swept next, and whose.
    pub fn next(&self) -> Option<(u8, Principal)> {
        self.due.first_key_value().map(|(key, ())| key)
    }

    /// It is not swept.
    pub fn skip(&mut self, what: u8, whose: Principal) {
        self.due.remove(&(what, whose));
    }

    /// It is after all.
    pub fn again(&mut self, what: u8, whose: Principal) {
        self.due.insert((what, whose), ());
    }

    pub fn leases_of(&mut self, user: Principal) {
        self.due.insert((LEASES, user), ());
    }

    pub fn homes_of(&mut self, bucket: Principal) {
        self.due.insert((HOMES, bucket), ());
    }
}

impl Index {
    /// Does a slice of what is due.
    pub fn sweep(&mut self) {
        let Some(((what, whose), ())) = self.sweeps.due.first_key_value() else {
            return;
        };
        let done = match what {
            LEASES => self.users.sweep_leases(whose, ROWS_PER_TURN),
            HOMES => match self.buckets.get(&whose).map(|row| row.generation) {
                Some(generation) => self.blobs.sweep(whose, generation, ROWS_PER_TURN),
                None => true,
            },
            _ => true,
        };
        if done {
            self.sweeps.due.remove(&(what, whose));
        }
    }
}
