//! References come and go. A blob lives exactly as long as it has one, and its bytes are charged once for each user
//! that has one; each further reference is charged too, as it takes room itself.

use std::collections::BTreeSet;

use candid::Principal;
use openstorage_canister::audience::Wanted;
use openstorage_tokens::Scope;
use openstorage_types::{
    BlobId, BlobReference, accessors_are_valid,
    bucket::{
        AddBlobReferenceArgs, AddBlobReferenceError, RemoveBlobReferenceArgs,
        RemoveBlobReferenceError,
    },
    channel::{AccessorDeleted, LeaseArgs, Reference, kind},
    chunk_count,
    limits::{ACCESSORS_MAX, MIME_TYPE_BYTES_MAX, NAME_BYTES_MAX, REFERENCE_BYTES_MIN, charge},
    mime_type,
};

use crate::{
    Bucket, Now, Stop, Stored, accounts::Account, certify::View, mutants::Mutant,
    push::CHUNKS_PER_TURN, references::Named,
};

/// References removed in one turn of the deletion of an accessor.
const REMOVED_PER_TURN: usize = 500;

impl Bucket {
    /// Adds references of a user to a blob whose bytes are sealed; one that had none is stored from now on.
    /// `owner_has` says whether the user has one already; if not, its allowance must be secured.
    pub(crate) fn refer(
        &mut self,
        owner: Principal,
        blob: &BlobId,
        stored: Stored,
        owner_has: bool,
        accessors: &[Named],
        now: Now,
    ) {
        let mut stored = stored;
        let is_new = stored.references == 0;
        let first = self.totals().references_made;
        let mut number = first;
        // Accessors that see the blob for the first time, and those that see it by an older reference.
        let (mut new_to, mut shared) = (Vec::new(), Vec::new());
        for named in accessors {
            let accessor_id = named.accessor_id;
            // The owner's first is not there; an accessor may be named twice.
            let may_be_there = owner_has || number > first;
            if may_be_there && self.references.has(blob, &owner, &accessor_id) {
                continue;
            }
            let is_new_to = stored.references == 0 || !self.certify.shows(&accessor_id, blob);
            let reference = self.references.add(blob, owner, named, now.ms, number);
            if is_new_to {
                new_to.push((accessor_id, reference));
            } else {
                if !self.is_mutant(Mutant::WaitingForgotten) {
                    self.references.queue(blob, owner, &accessor_id, number);
                }
                shared.push((accessor_id, reference));
            }
            let event = Reference {
                blob_id: *blob,
                size: stored.size,
                owner,
                accessor_id,
                with_blob: stored.references == 0,
            };
            self.tell(kind::BLOB_REFERENCE_ADDED, &event, now);
            number += 1;
            stored.references += 1;
        }
        if number == first {
            return;
        }
        let count = number - first;
        let price = match owner_has {
            true => count * REFERENCE_BYTES_MIN,
            false => charge(stored.size, count),
        };
        self.accounts.spend(&owner, price);
        self.accounts.referred(&owner, count as u32);
        if is_new {
            self.blobs.insert(blob.0, stored.slot);
        }
        self.store.set_note(stored.slot, stored.references);
        self.count(|totals| {
            totals.references_made = number;
            totals.bytes_stored += if is_new { stored.size } else { 0 };
        });
        for (accessor, reference) in &new_to {
            let view = View {
                owner,
                reference,
                stored: &stored,
            };
            self.certify.set(accessor, blob, Some(view));
        }
        for (accessor, reference) in &shared {
            let Some((owner, first)) = self.oldest(blob, accessor) else {
                continue;
            };
            self.certify
                .share(accessor, blob, &stored, [&first, reference]);
            let view = View {
                owner,
                reference: &first,
                stored: &stored,
            };
            self.certify.set(accessor, blob, Some(view));
        }
    }

    /// Whether the user may have references for these accessors too; if not, how many it may have in all.
    pub(crate) fn check_room(
        &self,
        owner: &Principal,
        account: &Account,
        blob: &BlobId,
        accessors: &[Principal],
    ) -> Result<(), u64> {
        let (max, left) = account.room_for_references();
        if accessors.len() as u64 <= left {
            return Ok(());
        }
        // Some may be there already, or be named twice.
        match self.new_among(blob, owner, accessors) as u64 <= left {
            true => Ok(()),
            false => Err(max),
        }
    }

    /// What to ask the index for, so that an owner of a blob can have references for these accessors too; none where it
    /// can.
    pub(crate) fn further_charge(
        &self,
        blob: &BlobId,
        owner: &Principal,
        account: &Account,
        accessors: &[Principal],
    ) -> Option<LeaseArgs> {
        let price = |count: usize| count as u64 * REFERENCE_BYTES_MIN;
        account.shortage(*owner, price(accessors.len()))?;
        account.shortage(*owner, price(self.new_among(blob, owner, accessors)))
    }

    /// For how many of these accessors the owner has no reference to the blob.
    fn new_among(&self, blob: &BlobId, owner: &Principal, accessors: &[Principal]) -> usize {
        let accessors: BTreeSet<_> = accessors.iter().collect();
        let new = accessors
            .into_iter()
            .filter(|accessor| !self.references.has(blob, owner, accessor));
        new.count()
    }

    /// Removes one reference; with the user's last its charge, with the blob's last the blob.
    pub(crate) fn unrefer(
        &mut self,
        blob: &BlobId,
        owner: &Principal,
        accessor: &Principal,
        now: Now,
    ) {
        let Some(reference) = self.references.remove(blob, owner, accessor) else {
            return;
        };
        let Some(mut stored) = self.stored(blob) else {
            return;
        };
        self.accounts.unreferred(owner);
        stored.references = stored.references.saturating_sub(1);
        let blob_gone = stored.references == 0;
        let first = if self.certify.owner(accessor, blob) == Some(*owner) {
            self.references.next(blob, accessor)
        } else {
            self.references.unqueue(blob, accessor, &reference);
            self.oldest(blob, accessor)
        };
        if first.is_some() {
            let is_alone = self.references.waiting(blob, accessor).next().is_none();
            self.certify
                .unshare(accessor, blob, &stored, &reference, is_alone);
        }
        let view = first.as_ref().map(|(owner, reference)| View {
            owner: *owner,
            reference,
            stored: &stored,
        });
        self.certify.set(accessor, blob, view);
        let price = match blob_gone || !self.references.owner_has(blob, owner) {
            true => charge(stored.size, 1),
            false => REFERENCE_BYTES_MIN,
        };
        self.accounts.free(owner, price);
        if self.is_mutant(Mutant::FreedTwice) {
            self.accounts.free(owner, price);
        }
        if blob_gone {
            self.blobs.remove(&blob.0);
            self.uploads.forget_draws(blob);
            self.drop_slot(stored.slot);
            self.count(|totals| {
                totals.bytes_stored = totals.bytes_stored.saturating_sub(stored.size);
            });
        } else {
            self.store.set_note(stored.slot, stored.references);
        }
        let event = Reference {
            blob_id: *blob,
            size: stored.size,
            owner: *owner,
            accessor_id: *accessor,
            with_blob: blob_gone,
        };
        self.tell(kind::BLOB_REFERENCE_REMOVED, &event, now);
    }

    /// The caller may read a blob and gives it to further accessors, at its own charge.
    pub fn add_blob_reference(
        &mut self,
        caller: Principal,
        args: &AddBlobReferenceArgs,
        now: Now,
    ) -> Result<BlobReference, Stop<AddBlobReferenceError>> {
        type Error = AddBlobReferenceError;
        if caller == Principal::anonymous() {
            return Err(Error::NotAuthorized.into());
        }
        if !accessors_are_valid(&args.accessor_ids) {
            let max = ACCESSORS_MAX as u32;
            return Err(Error::InvalidAccessors { max }.into());
        }
        let Some(mime_type) = mime_type(&args.mime_type) else {
            let max = MIME_TYPE_BYTES_MAX as u32;
            return Err(Error::InvalidMimeType { max }.into());
        };
        let name = args.name.as_deref();
        if name.unwrap_or_default().len() > NAME_BYTES_MAX {
            let max = NAME_BYTES_MAX as u32;
            return Err(Error::InvalidName { max }.into());
        }
        let account = self.admit_user::<Error>(&caller)?;
        let wanted = Wanted {
            scope: Scope::READ,
            accessor: args.from_accessor,
            blob: args.blob_id,
            owner: None,
        };
        let claims = self.access.check(&args.token, &wanted, now.ms);
        if claims.map_err(Error::InvalidToken)?.principal != caller {
            return Err(Error::NotAuthorized.into());
        }
        let mut accessors = args.accessor_ids.iter();
        if let Some(deleted) = accessors.find(|id| self.accessors_deleted.contains_key(id)) {
            let accessor_id = *deleted;
            return Err(Error::AccessorDeleted { accessor_id }.into());
        }
        let blob = &args.blob_id;
        let is_seen = self.sees(&args.from_accessor, blob);
        let stored = self.stored(blob).filter(|_| is_seen);
        let stored = stored.ok_or(Error::NotFound)?;
        let room = self.check_room(&caller, &account, blob, &args.accessor_ids);
        room.map_err(|max| Error::TooManyReferences { max })?;
        // Mostly the caller forwards what is its own: that is found at once.
        let owner_has = self.references.has(blob, &caller, &args.from_accessor)
            || self.references.owner_has(blob, &caller);
        let wanted = match owner_has {
            true => self.further_charge(blob, &caller, &account, &args.accessor_ids),
            false => account.shortage(caller, charge(stored.size, args.accessor_ids.len() as u64)),
        };
        if let Some(lease) = wanted {
            return Err(Stop::Lease(lease));
        }
        let named: Vec<_> = Named::all(&args.accessor_ids, &mime_type, name).collect();
        let room = self.certify.reserve(named.len());
        room.map_err(|_| Error::BucketFull { bytes_free: 0 })?;
        self.refer(caller, blob, stored, owner_has, &named, now);
        Ok(BlobReference {
            blob_id: args.blob_id,
            bucket: self.access.audience.own(),
            size: stored.size,
            mime_type: mime_type.into_owned(),
        })
    }

    /// By the owner, or by whom a delete token was issued to. Removing what is not there is no error.
    pub fn remove_blob_reference(
        &mut self,
        caller: Principal,
        args: &RemoveBlobReferenceArgs,
        now: Now,
    ) -> Result<(), RemoveBlobReferenceError> {
        type Error = RemoveBlobReferenceError;
        if caller == Principal::anonymous() {
            return Err(Error::NotAuthorized);
        }
        if caller != args.owner {
            let token = args.token.as_deref().ok_or(Error::NotAuthorized)?;
            let wanted = Wanted {
                scope: Scope::DELETE_REFERENCE.with(Scope::BOUND_TO_BLOB),
                accessor: args.accessor_id,
                blob: args.blob_id,
                owner: Some(args.owner),
            };
            let claims = self.access.check(token, &wanted, now.ms);
            let claims = claims.map_err(Error::InvalidToken)?;
            if claims.principal != caller {
                return Err(Error::NotAuthorized);
            }
            let reference = self
                .references
                .get(&args.blob_id, &args.owner, &args.accessor_id);
            if reference.is_some_and(|reference| claims.iat_ms < reference.created_ms) {
                return Err(Error::TokenOlderThanReference);
            }
        }
        self.unrefer(&args.blob_id, &args.owner, &args.accessor_id, now);
        Ok(())
    }

    /// Final: nothing is ever shown to this accessor again. Its references go over several turns.
    pub(crate) fn delete_accessor(&mut self, event: AccessorDeleted) {
        let AccessorDeleted { accessor_id } = event;
        if self.accessors_deleted.insert(accessor_id, ()).is_none() {
            self.deletions.insert(accessor_id, ());
        }
    }

    /// Removes some references of deleted accessors.
    pub fn delete_slice(&mut self, now: Now) {
        let Some((accessor, ())) = self.deletions.first_key_value() else {
            return;
        };
        // Behind each that is seen others may wait, which are seen then.
        let seen = self.certify.seen(&accessor, REMOVED_PER_TURN);
        let mut chunks = 0;
        for (blob, owner) in &seen {
            chunks += self.chunks_of(blob);
            self.unrefer(blob, owner, &accessor, now);
            if self.certify.owner(&accessor, blob) == Some(*owner) {
                // There is no such reference: what is shown by it goes too, or this would never end.
                self.certify.set(&accessor, blob, None);
                // Anybody reads these lines: they name nobody.
                let text = "fault: a blob was shown without a reference; it is shown no more";
                self.note(now.ms, text);
            }
            if chunks >= CHUNKS_PER_TURN {
                break;
            }
        }
        if self.certify.seen(&accessor, 1).is_empty() {
            self.deletions.remove(&accessor);
        }
    }

    /// Chunks whose bytes are given back where the blob loses its last reference.
    pub(crate) fn chunks_of(&self, blob: &BlobId) -> u64 {
        let last = self.stored(blob).filter(|stored| stored.references == 1);
        last.map_or(0, |stored| chunk_count(stored.size))
    }

    pub fn is_deleting(&self) -> bool {
        !self.deletions.is_empty()
    }
}
