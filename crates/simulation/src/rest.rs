//! The faults stop, and everything comes to rest: what holds then.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use candid::Principal;
use chat::work::Lane;
use data_bucket::Inventory;
use data_bucket_index::{Context, Index};
use openstorage_localnet::network::Plan;
use openstorage_types::{
    BlobId,
    bucket::{BucketStatus, UploadArgs},
    channel::{AuditedUser, Counters},
    chat::{ChatError, RegisterOk},
    index::{BucketInfo, BucketState, ChangeKind, FeedArgs, IndexStatus},
    limits::{KEY_OVERLAP_MS, KEY_REFRESH_MS},
};

use crate::{
    Violation,
    clients::{Op, plain},
    ensure,
    model::Ref,
    procedures::Stage,
    pulse::users_of,
    run::Run,
    stage::{USERS, operator, user},
};

/// Seconds, each a round, then minutes: longer than any wait, back-off or lost call lasts.
const SECONDS: usize = 90;
const MINUTES: usize = 150;
/// By then the chat has asked the index, which was restored, whether it knows its keys, and has drawn another.
const KEY_MINUTES: usize = (KEY_REFRESH_MS / MINUTE_MS) as usize + 2;
/// Between two looks of an operator at what has stopped.
const LOOK_EVERY: usize = 20;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// Turns after an hour that passes at once, with the one in which it does.
const PER_HOUR: usize = 60;
/// The index believes so many versions of a key; the chat's next one waits until the oldest is over.
const KEY_WAITS: &str = "the chat has yet to do Some(RegisterIssuer";

/// All that a bucket holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Holding {
    pub inventory: Inventory,
    pub users: Vec<AuditedUser>,
}

/// Everything that the buckets hold.
pub type Held = BTreeMap<Principal, Rc<Holding>>;

/// What was found good, and how often the canisters had changed by then.
#[derive(Default)]
pub struct Seen {
    buckets: BTreeMap<Principal, (u64, Rc<Holding>)>,
    /// The bucket's changes, and the index's.
    agreed: BTreeMap<Principal, (u64, u64)>,
    /// Blobs of which every byte was looked at, and how often the bucket had been restored.
    hashed: BTreeSet<(Principal, BlobId, u64)>,
}

fn turn_ms(turn: usize) -> u64 {
    match turn {
        _ if turn < SECONDS => 1_000,
        _ if turn < SECONDS + MINUTES => MINUTE_MS,
        _ if (turn - SECONDS - MINUTES).is_multiple_of(PER_HOUR) => HOUR_MS,
        // What the hour has brought about is done before it is looked at.
        _ => 1_000,
    }
}

impl Run<'_> {
    /// Waits until everything has come to rest, and looks at all of it.
    pub fn rest(&mut self) -> Result<(), Violation> {
        self.note("the faults stop");
        self.set_faults(Plan::default());
        let mut why = Violation::new(12, "nothing was looked at");
        let hours = (KEY_OVERLAP_MS / HOUR_MS) as usize + 2;
        for turn in 0..SECONDS + MINUTES + hours * PER_HOUR {
            if turn >= SECONDS + MINUTES
                && (turn - SECONDS - MINUTES).is_multiple_of(PER_HOUR)
                && !why.what.starts_with(KEY_WAITS)
            {
                break;
            }
            if turn % LOOK_EVERY == 0 {
                self.refill();
                self.look_after();
            }
            // While a procedure lasts, the canister that is restored takes no message.
            let is_back = self.procedures.is_empty() && std::mem::take(&mut self.just_restored);
            if turn % LOOK_EVERY == 0 || is_back {
                self.nudge();
            }
            if self.forgot_rooms && self.pending.is_empty() && self.procedures.is_empty() {
                self.forgot_rooms = false;
                self.look_at_rooms();
            }
            self.stage.pass(turn_ms(turn));
            self.stage.network.tick();
            self.collect();
            // Until the chat has had its keys confirmed, nothing is over; to look at everything takes long.
            let has_keys = !self.forgot_keys || turn >= SECONDS + KEY_MINUTES;
            let ends_an_hour = (turn + 1)
                .saturating_sub(SECONDS + MINUTES)
                .is_multiple_of(PER_HOUR);
            if has_keys && ends_an_hour | (turn < SECONDS + MINUTES) {
                match self.at_rest() {
                    Ok(held) => return self.rested(&held),
                    Err(violation) => why = violation,
                }
            }
            self.check_pulse()?;
        }
        Err(why)
    }

    fn rested(&mut self, held: &Held) -> Result<(), Violation> {
        self.note("everything is at rest");
        self.check_pulse()?;
        let there = self.references(held);
        self.model.settle(&there)?;
        self.summary.references = there.len();
        self.is_loose = false;
        self.forgot_keys = false;
        self.chat_limits.clear();
        self.check_kinds(held)?;
        self.check_feed(&there)?;
        self.check_fleet()?;
        self.check_revocations()?;
        self.check_reads()?;
        self.probe(held)
    }

    /// References are of the types and names with which they were asked for, and what is certified is what there is.
    fn check_kinds(&mut self, held: &Held) -> Result<(), Violation> {
        for (id, holding) in held {
            let Some(bucket) = self.stage.bucket(*id) else {
                return Err(Violation::new(23, format!("bucket {id} has no code")));
            };
            let certified = bucket.check_certified();
            certified.map_err(|error| Violation::new(27, format!("bucket {id}: {error}")))?;
            for (blob, owner, accessor) in &holding.inventory.references {
                let Some(place) = self.blobs.iter().position(|it| it.id == *blob) else {
                    continue;
                };
                let kind = bucket.kind_of(blob, owner, accessor);
                let asked = self.types.get(&(*id, place, *owner, *accessor));
                let is_asked = kind.as_ref().zip(asked).is_some_and(|((is, name), asked)| {
                    asked
                        .iter()
                        .any(|(it, of)| plain(it) == plain(is) && of == name)
                });
                ensure(is_asked, 4, || {
                    format!("blob {place} of {owner} in bucket {id} is {kind:?}, not {asked:?}")
                })?;
            }
        }
        Ok(())
    }

    /// Whoever follows the feed knows which references there are, unless it is told that it has missed something.
    fn check_feed(&mut self, there: &BTreeSet<Ref>) -> Result<(), Violation> {
        let context = Context {
            own: self.stage.index,
            caller: operator(),
            is_controller: true,
            now_ms: self.stage.now_ms(),
            version: 0,
        };
        let Some(index) = self.stage.index_image() else {
            return Err(Violation::new(12, "the index has no code"));
        };
        let mut has_missed = false;
        loop {
            let args = FeedArgs {
                after: self.feed_until,
                limit: 1_000,
                owner: None,
            };
            let page = index.feed(&context, &args);
            let page = page.map_err(|error| Violation::new(12, format!("feed: {error:?}")))?;
            has_missed |= page.forgotten_until > self.feed_until;
            let Some(last) = page.changes.last() else {
                self.feed_until = self.feed_until.max(page.forgotten_until);
                break;
            };
            self.feed_until = last.id;
            for change in page.changes {
                let place = self.blobs.iter().position(|it| it.id == change.blob_id);
                let place = place.unwrap_or(usize::MAX);
                let it = (change.bucket, place, change.owner, change.accessor_id);
                match change.what {
                    ChangeKind::Added | ChangeKind::Referenced => self.followed.insert(it),
                    ChangeKind::Deleted | ChangeKind::Unreferenced => self.followed.remove(&it),
                };
            }
        }
        if has_missed {
            self.followed = there.clone();
        }
        ensure(self.followed == *there, 10, || {
            let wrong = self.followed.symmetric_difference(there);
            let wrong: Vec<_> = wrong.map(crate::model::name).collect();
            format!("the feed and the buckets disagree about {wrong:?}")
        })
    }

    /// Waits, without faults, until everybody has heard everything.
    pub fn told(&mut self) -> Result<(), Violation> {
        let mut why = Violation::new(12, "nothing was looked at");
        for turn in 0..SECONDS + MINUTES {
            self.stage.pass(turn_ms(turn));
            match self.at_rest() {
                Ok(_) => return Ok(()),
                Err(violation) => why = violation,
            }
        }
        Err(why)
    }

    /// The last rest: whatever was begun has lapsed, and every lease is back.
    pub fn end(&mut self) -> Result<(), Violation> {
        self.uploads.clear();
        for hours in [25, 3] {
            self.refill();
            self.stage.pass(hours * 60 * MINUTE_MS);
            self.rest()?;
        }
        self.seen = Seen::default();
        for (id, holding) in self.at_rest()? {
            let uploads = &holding.inventory.uploads;
            ensure(uploads.is_empty(), 8, || {
                format!("after a day bucket {id} still has {uploads:?}")
            })?;
        }
        let index = self.stage.index_image();
        let users = index.map(|index| index.inventory().users);
        for (user, row) in users.unwrap_or_default() {
            ensure(row.pool.leased == 0, 8, || {
                format!("after hours {user} still has {:?}", row.pool)
            })?;
        }
        Ok(())
    }

    /// The next message of anybody: a canister that could not run its timer goes on with it.
    fn nudge(&mut self) {
        let (nobody, someone) = (user(USERS), user(0));
        for bucket in self.known.clone() {
            let blob_id = BlobId([0; 32]);
            self.send(
                bucket,
                someone,
                "abort_upload",
                (UploadArgs { blob_id },),
                |_| Op::Other,
            );
        }
        self.order("delete_user", (nobody,));
        self.send(self.stage.chat, someone, "register", (), |_| Op::Other);
        for user in (1..USERS).map(user) {
            let me = self.stage.ask(self.stage.chat, user, "me", ());
            if let Ok(Err::<RegisterOk, _>(ChatError::NotRegistered)) = me {
                self.send(self.stage.chat, user, "register", (), |_| Op::Other);
            }
        }
    }

    /// What an operator does who sees that something stands still.
    fn look_after(&mut self) {
        let Some(status) = self.stage.status() else {
            let index = self.stage.index;
            return self.begin_procedure(index, Stage::Stop);
        };
        if status.roll.stopped.is_some() {
            self.order("upgrade_buckets", ());
        }
        let named: BTreeSet<_> = status.buckets.iter().map(|info| info.bucket).collect();
        for bucket in self.lost.clone().intersection(&named) {
            self.give_up(*bucket);
        }
        for bucket in self.known.clone() {
            if !named.contains(&bucket) {
                // An index that was restored has forgotten it.
                self.order("add_bucket", (bucket,));
            }
        }
        let is_upgrading = |info: &&BucketInfo| info.state == BucketState::Upgrading;
        if status.buckets.iter().any(|info| is_upgrading(&info)) {
            return;
        }
        let chat = self.stage.chat;
        for canister in self.known.clone().into_iter().chain([chat]) {
            if self.is_stopped(canister) {
                self.begin_procedure(canister, Stage::Stop);
            }
        }
    }

    fn is_stopped(&mut self, canister: Principal) -> bool {
        let network = &mut self.stage.network;
        let answer = network.query(operator(), canister, "http_request", vec![]);
        answer.is_err_and(|reject| matches!(reject.error_code_text().as_str(), "IC0508" | "IC0509"))
    }

    /// Everything, if nothing is under way and everybody agrees.
    fn at_rest(&mut self) -> Result<Held, Violation> {
        ensure(self.pending.is_empty(), 12, || {
            format!("{} is not answered", self.pending[0].what)
        })?;
        ensure(self.procedures.is_empty(), 12, || {
            format!("{} is not started", self.procedures[0].canister)
        })?;
        let Some(status) = self.stage.status() else {
            return Err(Violation::new(12, "the index does not answer"));
        };
        self.all_told(&status)?;
        let mut held = Held::new();
        for info in &status.buckets {
            held.insert(info.bucket, self.holding(info.bucket)?);
        }
        self.agree(&held)?;
        let mut index = None;
        for id in held.keys() {
            self.nothing_to_tell(*id, &mut index)?;
        }
        Ok(held)
    }

    /// All that a bucket holds. Of its blobs the bytes are looked at once, and again at the end.
    fn holding(&mut self, id: Principal) -> Result<Rc<Holding>, Violation> {
        let no_code = || Violation::new(23, format!("bucket {id} has no code"));
        let changes = self.stage.changes(id).ok_or_else(no_code)?;
        if let Some((seen, holding)) = self.seen.buckets.get(&id)
            && *seen == changes
        {
            return Ok(Rc::clone(holding));
        }
        let bucket = self.stage.bucket(id).ok_or_else(no_code)?;
        let is_deleting = bucket.is_deleting() || bucket.is_deleting_users();
        ensure(!is_deleting, 12, || format!("bucket {id} still deletes"))?;
        let wrong = |error| Violation::new(4, format!("bucket {id}: {error}"));
        let inventory = bucket.inventory().map_err(wrong)?;
        let epoch = self.model.epoch(&id);
        for blob in inventory.blobs.keys() {
            if self.seen.hashed.insert((id, *blob, epoch)) {
                bucket.check_bytes(blob).map_err(wrong)?;
            }
        }
        let users = users_of(&bucket);
        let holding = Rc::new(Holding { inventory, users });
        let seen = (changes, Rc::clone(&holding));
        self.seen.buckets.insert(id, seen);
        Ok(holding)
    }

    fn all_told(&mut self, status: &IndexStatus) -> Result<(), Violation> {
        for id in &self.known {
            ensure(
                status.buckets.iter().any(|info| info.bucket == *id),
                23,
                || format!("the index does not know bucket {id}"),
            )?;
        }
        for info in &status.buckets {
            let what = || format!("{info:?}");
            ensure(!self.lost.contains(&info.bucket), 23, what)?;
            ensure(info.events_behind == 0, 12, what)?;
            let is_ready = !matches!(info.state, BucketState::Creating | BucketState::Upgrading);
            ensure(is_ready, 23, what)?;
            // A bucket that was started again is asked within a minute, and given new blobs from then on.
            ensure(info.trouble.is_none(), 12, what)?;
            let answer = self.stage.ask(info.bucket, operator(), "status", ());
            let bucket: BucketStatus = answer.map_err(|reject| {
                Violation::new(12, format!("{}: {}", info.bucket, reject.message))
            })?;
            ensure(
                bucket.events_unsent == 0 && bucket.key.is_some(),
                12,
                || format!("bucket {}: {bucket:?}", info.bucket),
            )?;
        }
        for n in 0..USERS {
            let me = self.stage.ask(self.stage.chat, user(n), "me", ());
            let me: Result<RegisterOk, ChatError> =
                me.map_err(|reject| Violation::new(12, format!("the chat: {}", reject.message)))?;
            ensure(me.as_ref().is_ok_and(|me| me.confirmed), 12, || {
                format!("the chat says of {}: {me:?}", user(n))
            })?;
        }
        let roll = &status.roll;
        let is_done = roll.stopped.is_none() && roll.running == 0 && roll.waiting == 0;
        ensure(is_done, 12, || format!("{roll:?}"))?;
        self.nothing_due_in_chat()
    }

    /// The chat is behind with nothing that it does by itself: after hours that pass at once, it has asked for the keys
    /// of buckets, and has had its own confirmed.
    fn nothing_due_in_chat(&mut self) -> Result<(), Violation> {
        let now_ms = self.stage.now_ms();
        let Some(chat) = self.stage.chat_image() else {
            return Err(Violation::new(12, "the chat has no code"));
        };
        for lane in Lane::ALL {
            let work = chat.next_work(lane, now_ms);
            ensure(work.is_none(), 12, || {
                format!("the chat has yet to do {work:?}")
            })?;
        }
        Ok(())
    }

    /// Did the bucket speak now, the index would have nothing to ask it, and nothing to say: both stand where
    /// the other believes. Copies of both say so.
    fn nothing_to_tell(
        &mut self,
        id: Principal,
        copy: &mut Option<Index>,
    ) -> Result<(), Violation> {
        let stage = &mut self.stage;
        let changes = stage.changes(id).zip(stage.changes(stage.index));
        if changes.is_some() && self.seen.agreed.get(&id).copied() == changes {
            return Ok(());
        }
        if copy.is_none() {
            *copy = stage.index_copy();
        }
        let copies = stage.bucket_copy(id).zip(copy.as_mut());
        let (Some(changes), Some((mut bucket, index))) = (changes, copies) else {
            return Err(Violation::new(12, "index or bucket have no code"));
        };
        let context = Context {
            own: self.stage.index,
            caller: id,
            is_controller: false,
            now_ms: self.stage.now_ms(),
            version: 0,
        };
        if let Some(batch) = bucket.next_batch(0) {
            let events = &batch.args.events;
            ensure(events.is_empty(), 12, || {
                format!("bucket {id} has yet to tell {} events", events.len())
            })?;
            let heard = index.events(&context, &batch.args);
            ensure(heard.is_ok(), 12, || format!("bucket {id}: {heard:?}"))?;
        }
        let asked = index.next_batch(id, 0);
        ensure(asked.is_none(), 12, || {
            format!("the index has yet to say to bucket {id}: {asked:?}")
        })?;
        self.seen.agreed.insert(id, changes);
        Ok(())
    }

    /// The index's blobs, homes, sizes and counters are what the buckets hold.
    fn agree(&mut self, held: &Held) -> Result<(), Violation> {
        let Some(index) = self.stage.index_image() else {
            return Err(Violation::new(12, "the index has no code"));
        };
        index.check().map_err(|why| Violation::new(5, why))?;
        let index = index.inventory();
        let homes: BTreeMap<(BlobId, Principal), u64> = held
            .iter()
            .flat_map(|(id, holding)| {
                let blobs = holding.inventory.blobs.iter();
                blobs.map(|(blob, size)| ((*blob, *id), *size))
            })
            .collect();
        ensure(homes == index.homes, 5, || {
            let only = |a: &BTreeMap<_, _>, b: &BTreeMap<(BlobId, Principal), u64>| {
                a.keys()
                    .filter(|it| !b.contains_key(it))
                    .copied()
                    .collect::<Vec<(BlobId, Principal)>>()
            };
            format!(
                "only buckets have {:?}, only the index {:?}",
                only(&homes, &index.homes),
                only(&index.homes, &homes)
            )
        })?;
        let distinct: BTreeSet<_> = homes.keys().map(|(blob, _)| blob).collect();
        let totals = (distinct.len() as u64, homes.values().sum());
        ensure(totals == index.totals, 5, || {
            format!("the index says {:?}, the buckets {totals:?}", index.totals)
        })?;
        let mut counters = BTreeMap::new();
        for (id, holding) in held {
            for user in &holding.users {
                let kept = &user.kept;
                counters.insert((kept.user, *id), (kept.incarnation, kept.counters));
            }
        }
        for (key, (incarnation, at_index)) in &index.counters {
            let at_bucket = counters.get(key).filter(|(it, _)| it == incarnation);
            let at_bucket = at_bucket.map_or(Counters::default(), |(_, counters)| *counters);
            let is_forgotten = at_index.held() == 0 && at_bucket == Counters::default();
            ensure(at_bucket == *at_index || is_forgotten, 6, || {
                format!(
                    "{key:?}, incarnation {incarnation}: the index has {at_index:?}, the bucket {at_bucket:?}"
                )
            })?;
        }
        for (key, (incarnation, at_bucket)) in &counters {
            let row = index.users.get(&key.0);
            let is_right = row.is_some_and(|row| !row.deleted && row.incarnation == *incarnation);
            ensure(is_right, 6, || {
                format!(
                    "{key:?} has incarnation {incarnation} in the bucket, and in the index {row:?}"
                )
            })?;
            let is_known = index.counters.contains_key(key);
            ensure(is_known || *at_bucket == Counters::default(), 6, || {
                format!("{key:?}: the bucket has {at_bucket:?}, the index nothing")
            })?;
        }
        Ok(())
    }

    fn references(&self, held: &Held) -> BTreeSet<Ref> {
        let mut there = BTreeSet::new();
        for (id, holding) in held {
            for (blob, owner, accessor) in &holding.inventory.references {
                let place = self.blobs.iter().position(|it| it.id == *blob);
                there.insert((*id, place.unwrap_or(usize::MAX), *owner, *accessor));
            }
        }
        there
    }
}
