//! What clients were told, and so what must be there.
//!
//! For every reference that anybody asked for the model has a [`Fact`]. A call whose outcome is unknown, or
//! that others contradict while it is under way, leaves none; when everything has come to rest what is there
//! becomes a fact.

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;

use crate::{Violation, ensure};

/// Bucket, blob (its place), owner, accessor.
pub type Ref = (Principal, usize, Principal, Principal);

/// What is certain of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// It was acknowledged.
    Present,
    /// Its removal was.
    Absent,
    /// The deletion of its owner or accessor was, at this moment: it is gone at rest.
    Doomed(u64),
    Unknown,
}

/// What became of a call that adds a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    Acknowledged,
    /// Nothing was heard, or the upload is being verified.
    Perhaps,
    /// By this call nothing comes.
    No,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    fact: Fact,
    /// Calls sent that add it, and that remove it.
    adds: u64,
    removes: u64,
    adding: u32,
    removing: u32,
    last_add: u64,
    /// An upload for it may have all of its chunks, and be verified later.
    may_come: bool,
}

const NEW: Row = Row {
    fact: Fact::Absent,
    adds: 0,
    removes: 0,
    adding: 0,
    removing: 0,
    last_add: 0,
    may_come: false,
};

/// In a [`Mark`]: calls of the other sort were under way when it was sent.
const CONTESTED: u64 = u64::MAX;

/// A call that adds or removes references, while it is under way.
#[derive(Debug, Clone)]
pub struct Mark {
    /// With the calls of the other sort that were sent before.
    refs: Vec<(Ref, u64)>,
    /// How often the bucket had been restored.
    epoch: u64,
}

/// What was certain of a bucket when its snapshot was taken.
#[derive(Debug, Clone)]
pub struct Then {
    rows: BTreeMap<Ref, Row>,
    at: u64,
}

#[derive(Default)]
pub struct Model {
    rows: BTreeMap<Ref, Row>,
    /// Counts what happens.
    moment: u64,
    /// How often each bucket was restored from a snapshot.
    epochs: BTreeMap<Principal, u64>,
    /// Owners and accessors that were asked to be deleted, since everything was at rest.
    unsettled: BTreeSet<Principal>,
    /// Accessors whose deletion was acknowledged, and when.
    dead: BTreeMap<Principal, u64>,
}

impl Model {
    pub fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    pub fn epoch(&self, bucket: &Principal) -> u64 {
        self.epochs.get(bucket).copied().unwrap_or(0)
    }

    /// References of which something is certain, or nothing is.
    pub fn refs(&self) -> impl Iterator<Item = (&Ref, Fact)> {
        self.rows.iter().map(|(it, row)| (it, row.fact))
    }

    /// A call was sent that adds these references, all of one bucket, blob and owner. An upload that was begun
    /// before may come to its end with it, for other accessors.
    pub fn add_sent(&mut self, refs: &[Ref]) -> Mark {
        let at = self.moment();
        let Some(first) = refs.first().copied() else {
            return self.mark(vec![], Principal::anonymous());
        };
        for (_, row) in self.siblings(first) {
            if row.fact == Fact::Absent {
                row.fact = Fact::Unknown;
            }
        }
        let mut marked = vec![];
        for it in refs {
            let row = self.rows.entry(*it).or_insert(NEW);
            row.adds += 1;
            row.adding += 1;
            row.last_add = at;
            if row.fact != Fact::Present {
                row.fact = Fact::Unknown;
            }
            let is_contested = row.removing > 0;
            marked.push((*it, if is_contested { CONTESTED } else { row.removes }));
        }
        self.mark(marked, first.0)
    }

    /// What became of it.
    pub fn add_done(&mut self, mark: &Mark, added: Added) {
        for (it, removes) in &mark.refs {
            let is_same = self.epoch(&it.0) == mark.epoch;
            let is_settled = !self.unsettled.contains(&it.2)
                && !self.unsettled.contains(&it.3)
                && !self.dead.contains_key(&it.3);
            let row = self.rows.entry(*it).or_insert(NEW);
            row.adding -= 1;
            row.may_come |= added == Added::Perhaps;
            if added == Added::Acknowledged && is_same {
                let is_certain = is_settled && row.removing == 0 && row.removes == *removes;
                row.fact = match is_certain {
                    true => Fact::Present,
                    false => Fact::Unknown,
                };
            }
        }
    }

    /// A call was sent that removes this reference.
    pub fn remove_sent(&mut self, it: Ref) -> Mark {
        self.moment();
        let is_contested = self.siblings(it).any(|(_, row)| row.adding > 0);
        let row = self.rows.entry(it).or_insert(NEW);
        row.removes += 1;
        row.removing += 1;
        if row.fact == Fact::Present {
            row.fact = Fact::Unknown;
        }
        let adds = if is_contested { CONTESTED } else { row.adds };
        self.mark(vec![(it, adds)], it.0)
    }

    pub fn remove_done(&mut self, mark: &Mark, acknowledged: bool) {
        for (it, adds) in &mark.refs {
            let is_same = self.epoch(&it.0) == mark.epoch;
            let is_adding = self
                .siblings(*it)
                .any(|(_, row)| row.adding > 0 || row.may_come);
            let row = self.rows.entry(*it).or_insert(NEW);
            row.removing -= 1;
            let is_certain = is_same && !is_adding && row.adds == *adds;
            if acknowledged && is_certain && !matches!(row.fact, Fact::Doomed(_)) {
                row.fact = Fact::Absent;
            }
        }
    }

    fn mark(&self, refs: Vec<(Ref, u64)>, bucket: Principal) -> Mark {
        Mark {
            refs,
            epoch: self.epoch(&bucket),
        }
    }

    /// References of the same bucket, blob and owner.
    fn siblings(&mut self, of: Ref) -> impl Iterator<Item = (&Ref, &mut Row)> {
        let (bucket, blob, owner, _) = of;
        let first = (bucket, blob, owner, Principal::management_canister());
        self.rows
            .range_mut(first..)
            .take_while(move |((in_bucket, of_blob, by, _), _)| {
                (*in_bucket, *of_blob, *by) == (bucket, blob, owner)
            })
    }

    /// An owner or an accessor was asked to be deleted.
    pub fn deletion_sent(&mut self, whose: Principal) -> u64 {
        self.unsettled.insert(whose);
        let is_of_it = |it: &Ref| it.2 == whose || it.3 == whose;
        for (_, row) in self.rows.iter_mut().filter(|(it, _)| is_of_it(it)) {
            row.removes += 1;
            if row.fact == Fact::Present {
                row.fact = Fact::Unknown;
            }
        }
        self.moment()
    }

    /// The deletion that was sent at that moment was acknowledged.
    pub fn deletion_done(&mut self, whose: Principal, sent: u64, is_accessor: bool) {
        let now = self.moment();
        if is_accessor {
            self.dead.entry(whose).or_insert(now);
        }
        for (it, row) in &mut self.rows {
            let is_of_it = it.2 == whose || it.3 == whose;
            // What was sent later may be of the next incarnation; nothing outlives an accessor.
            let is_before = row.last_add < sent && row.adding == 0;
            if is_of_it && (is_before || is_accessor) {
                row.fact = Fact::Doomed(now);
            }
        }
    }

    /// What is certain of a bucket, whose snapshot was taken just now.
    pub fn remember(&mut self, bucket: Principal) -> Then {
        let at = self.moment();
        let rows = self.rows.iter().filter(|(it, _)| it.0 == bucket);
        Then {
            rows: rows.map(|(it, row)| (*it, *row)).collect(),
            at,
        }
    }

    /// The bucket is again as it was then: certain is only what was, and was not touched since.
    pub fn restored(&mut self, bucket: Principal, then: &Then) {
        *self.epochs.entry(bucket).or_default() += 1;
        for (it, row) in self.rows.iter_mut().filter(|(it, _)| it.0 == bucket) {
            let was = then.rows.get(it).unwrap_or(&NEW);
            let is_untouched = row.adds == was.adds && row.removes == was.removes;
            row.fact = match (row.fact, was.fact) {
                (Fact::Doomed(at), _) => Fact::Doomed(at),
                (Fact::Present, Fact::Present) if row.removes == was.removes => Fact::Present,
                (Fact::Absent, Fact::Absent) if is_untouched => Fact::Absent,
                _ => Fact::Unknown,
            };
        }
    }

    /// The bucket is gone with all that was in it.
    pub fn lost(&mut self, bucket: Principal) {
        *self.epochs.entry(bucket).or_default() += 1;
        for (_, row) in self.rows.iter_mut().filter(|(it, _)| it.0 == bucket) {
            row.fact = Fact::Absent;
        }
    }

    /// The index is again as it was then: it may have forgotten deletions.
    pub fn index_restored(&mut self, then: u64) {
        for row in self.rows.values_mut() {
            if matches!(row.fact, Fact::Doomed(at) if at > then) {
                row.fact = Fact::Unknown;
            }
        }
        let forgotten = self.dead.extract_if(.., |_, at| *at > then);
        self.unsettled
            .extend(forgotten.map(|(accessor, _)| accessor));
    }

    /// Everything has come to rest, and these references are there.
    pub fn settle(&mut self, there: &BTreeSet<Ref>) -> Result<(), Violation> {
        for it in there {
            ensure(self.rows.contains_key(it), 4, || {
                format!("nobody asked for the reference {}", name(it))
            })?;
        }
        for (it, row) in &mut self.rows {
            let is_there = there.contains(it);
            match row.fact {
                Fact::Present => ensure(is_there, 1, || {
                    format!("the acknowledged reference {} is not there", name(it))
                })?,
                Fact::Absent | Fact::Doomed(_) => ensure(!is_there, 22, || {
                    format!(
                        "the deleted reference {} is there ({:?})",
                        name(it),
                        row.fact
                    )
                })?,
                Fact::Unknown => {}
            }
            row.fact = match is_there {
                true => Fact::Present,
                false => Fact::Absent,
            };
            row.may_come = false;
        }
        for (it, _) in self.rows.iter().filter(|(it, _)| there.contains(it)) {
            ensure(!self.dead.contains_key(&it.3), 22, || {
                format!("{} names a deleted accessor", name(it))
            })?;
        }
        self.unsettled.clear();
        Ok(())
    }
}

impl Then {
    pub fn at(&self) -> u64 {
        self.at
    }
}

pub fn name((bucket, blob, owner, accessor): &Ref) -> String {
    format!("of blob {blob} in {bucket} by {owner} for {accessor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(model: &Model, of: Ref) -> Option<Fact> {
        model
            .refs()
            .find(|(it, _)| **it == of)
            .map(|(_, fact)| fact)
    }

    fn it(accessor: u8) -> Ref {
        let id = |n| Principal::from_slice(&[n]);
        (id(1), 7, id(2), id(accessor))
    }

    #[test]
    fn a_call_that_is_contradicted_while_it_runs_proves_nothing() {
        let mut model = Model::default();
        let add = model.add_sent(&[it(3)]);
        let remove = model.remove_sent(it(3));
        model.add_done(&add, Added::Acknowledged);
        assert_eq!(fact(&model, it(3)), Some(Fact::Unknown));
        model.remove_done(&remove, true);
        assert_eq!(fact(&model, it(3)), Some(Fact::Unknown));
        let remove = model.remove_sent(it(3));
        model.remove_done(&remove, true);
        assert_eq!(fact(&model, it(3)), Some(Fact::Absent));
        // An upload for another accessor may finish one that was begun for this.
        model.add_sent(&[it(4)]);
        assert_eq!(fact(&model, it(3)), Some(Fact::Unknown));
    }

    #[test]
    fn what_may_be_verified_still_may_come_after_it_was_deleted() {
        for (added, certain) in [(Added::Perhaps, Fact::Unknown), (Added::No, Fact::Absent)] {
            let mut model = Model::default();
            let add = model.add_sent(&[it(3)]);
            model.add_done(&add, added);
            let remove = model.remove_sent(it(3));
            model.remove_done(&remove, true);
            assert_eq!(fact(&model, it(3)), Some(certain));
        }
    }

    #[test]
    fn what_was_acknowledged_is_there_at_rest_and_what_was_deleted_is_not() {
        let mut model = Model::default();
        let add = model.add_sent(&[it(3)]);
        model.add_done(&add, Added::Acknowledged);
        assert_eq!(model.settle(&BTreeSet::new()).unwrap_err().invariant, 1);
        model.settle(&[it(3)].into()).unwrap();
        let sent = model.deletion_sent(it(3).2);
        model.deletion_done(it(3).2, sent, false);
        assert_eq!(model.settle(&[it(3)].into()).unwrap_err().invariant, 22);
        model.settle(&BTreeSet::new()).unwrap();
        assert_eq!(model.settle(&[it(9)].into()).unwrap_err().invariant, 4);
    }
}
