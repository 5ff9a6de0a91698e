//! References come and go. A blob lives exactly as long as it has one, and is charged once for each user
//! that has one.

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
    channel::{AccessorDeleted, Reference, kind},
    is_file_name, is_mime_type,
    limits::{ACCESSORS_MAX, MIME_TYPE_BYTES_MAX, NAME_BYTES_MAX},
};

use crate::{
    Bucket, Now, Stop, Stored, accounts::Account, certify::View, mutants::Mutant, references::Named,
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
        if !owner_has {
            self.accounts.spend(&owner, stored.size);
        }
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
                self.references.queue(blob, owner, &accessor_id, number);
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
        self.accounts.referred(&owner, (number - first) as u32);
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
        let new: BTreeSet<_> = accessors
            .iter()
            .filter(|accessor| !self.references.has(blob, owner, accessor))
            .collect();
        if new.len() as u64 <= left {
            Ok(())
        } else {
            Err(max)
        }
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
        stored.references -= 1;
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
        if blob_gone || !self.references.owner_has(blob, owner) {
            self.accounts.free(owner, stored.size);
            if self.is_mutant(Mutant::FreedTwice) {
                self.accounts.free(owner, stored.size);
            }
        }
        if blob_gone {
            self.blobs.remove(&blob.0);
            self.drop_slot(stored.slot);
            self.count(|totals| totals.bytes_stored -= stored.size);
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
        if !is_mime_type(&args.mime_type) {
            let max = MIME_TYPE_BYTES_MAX as u32;
            return Err(Error::InvalidMimeType { max }.into());
        }
        if args.name.as_deref().is_some_and(|name| !is_file_name(name)) {
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
        if !owner_has && let Some(lease) = self.accounts.shortage(&caller, stored.size) {
            return Err(Stop::Lease(lease));
        }
        let named: Vec<_> = args
            .accessor_ids
            .iter()
            .map(|accessor_id| Named {
                accessor_id: *accessor_id,
                mime_type: args.mime_type.clone(),
                name: args.name.clone(),
            })
            .collect();
        let room = self.certify.reserve(named.len());
        room.map_err(|_| Error::BucketFull { bytes_free: 0 })?;
        self.refer(caller, blob, stored, owner_has, &named, now);
        Ok(BlobReference {
            blob_id: args.blob_id,
            bucket: self.access.audience.own(),
            size: stored.size,
            mime_type: args.mime_type.clone(),
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
        for (blob, owner) in &seen {
            self.unrefer(blob, owner, &accessor, now);
        }
        if self.certify.seen(&accessor, 1).is_empty() {
            self.deletions.remove(&accessor);
        }
    }

    pub fn is_deleting(&self) -> bool {
        !self.deletions.is_empty()
    }
}
