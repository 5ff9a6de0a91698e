//! Snapshots are taken, loaded, listed and deleted.

use std::collections::BTreeMap;

use candid::Principal;
use ic_management_canister_types::{
    ChangeDetails, DeleteCanisterSnapshotArgs, LoadCanisterSnapshotArgs, LoadSnapshotRecord,
    Snapshot as Listed, SnapshotSource, TakeCanisterSnapshotArgs,
};
use pocket_ic::ErrorCode;

use super::{Managed, nothing, reply};
use crate::{
    machine::Machine,
    network::{
        Network, Reject,
        call::Request,
        snapshot::{SNAPSHOTS_MAX, Snapshot},
    },
};

/// What it takes to take or load a snapshot, on the Internet Computer, and so much for each byte.
const SNAPSHOT_INSTRUCTIONS: u64 = 2_000_000_000;

impl Network {
    pub(super) fn take_snapshot(
        &mut self,
        request: &Request,
        (args,): (TakeCanisterSnapshotArgs,),
    ) -> Managed {
        let id = args.canister_id;
        let time_ns = self.time_ns;
        let canister = self.controlled(&id, &request.caller)?;
        let Some(machine) = &canister.machine else {
            return Err(Reject::no_module(&id));
        };
        if let Some(old) = &args.replace_snapshot
            && !canister.snapshots.contains_key(old)
        {
            return Err(unknown(&id, old));
        }
        if args.replace_snapshot.is_none() && canister.snapshots.len() >= SNAPSHOTS_MAX {
            return Err(Reject::new(
                ErrorCode::CanisterRejectedMessage,
                format!("Canister {id} has {SNAPSHOTS_MAX} snapshots already, as many as it may"),
            ));
        }
        let snapshot = Snapshot {
            taken_ns: time_ns,
            version: canister.version,
            module: machine.module().hash(),
            wasm_bytes: canister.wasm_bytes,
            image: machine.image(),
            certified_data: canister.certified_data.clone(),
            chunks: canister.chunks.clone(),
        };
        self.charge_work(&id, SNAPSHOT_INSTRUCTIONS.saturating_add(snapshot.bytes()))?;
        let canister = self.existing(&id)?;
        canister.snapshots_taken += 1;
        let name = [&canister.snapshots_taken.to_be_bytes(), id.as_slice()].concat();
        if let Some(old) = &args.replace_snapshot {
            canister.snapshots.remove(old);
        }
        let listed = listed(&name, &snapshot);
        canister.snapshots.insert(name, snapshot);
        if args.uninstall_code == Some(true) {
            self.uninstall(id, Some(request));
        }
        reply(&listed)
    }

    /// Code and memories are those of the snapshot; the version still rises. Timers end.
    pub(super) fn load_snapshot(
        &mut self,
        request: &Request,
        (args,): (LoadCanisterSnapshotArgs,),
    ) -> Managed {
        let (id, time_ns) = (args.canister_id, self.time_ns);
        let canister = self.controlled(&id, &request.caller)?;
        if canister.contexts > 0 {
            return Err(Reject::new(
                ErrorCode::CanisterNotStopped,
                format!(
                    "Canister {id} waits for {} calls or more; stop it before a snapshot is loaded",
                    canister.contexts
                ),
            ));
        }
        let snapshot = canister
            .snapshots
            .get(&args.snapshot_id)
            .ok_or_else(|| unknown(&id, &args.snapshot_id))?;
        let (hash, bytes) = (snapshot.module, snapshot.bytes());
        self.charge_work(&id, SNAPSHOT_INSTRUCTIONS.saturating_add(bytes))?;
        let failed = |text: String| Reject::new(ErrorCode::CanisterInvalidWasm, text);
        let wasm = self.modules.get(&hash).map(Vec::as_slice);
        let wasm = wasm.ok_or_else(|| failed("the snapshot's module is gone".into()))?;
        let module = self
            .compiler
            .compile(wasm)
            .map_err(|error| failed(error.to_string()))?;
        let canister = self.existing(&id)?;
        let snapshot = canister
            .snapshots
            .get(&args.snapshot_id)
            .ok_or_else(|| unknown(&id, &args.snapshot_id))?;
        let machine = Machine::from_image(&module, &snapshot.image)
            .map_err(|trap| failed(trap.to_string()))?
            .ok_or_else(|| failed("the snapshot does not fit its module".into()))?;
        canister.wasm_bytes = snapshot.wasm_bytes;
        canister.certified_data.clone_from(&snapshot.certified_data);
        canister.chunks.clone_from(&snapshot.chunks);
        let record = LoadSnapshotRecord {
            canister_version: snapshot.version,
            snapshot_id: args.snapshot_id.clone(),
            taken_at_timestamp: snapshot.taken_ns,
            source: SnapshotSource::TakenFromCanister(candid::Reserved),
            from_canister_id: None,
        };
        canister.machine = Some(machine);
        canister.version += 1;
        canister.record(time_ns, request, ChangeDetails::LoadSnapshot(record));
        self.set_timer(&id, 0);
        self.note_code(&id);
        nothing()
    }

    pub(super) fn list_snapshots(&mut self, caller: &Principal, id: Principal) -> Managed {
        let canister = self.controlled(&id, caller)?;
        let snapshots: &BTreeMap<_, _> = &canister.snapshots;
        let all: Vec<_> = snapshots
            .iter()
            .map(|(name, snapshot)| listed(name, snapshot))
            .collect();
        reply(&all)
    }

    pub(super) fn delete_snapshot(
        &mut self,
        request: &Request,
        (args,): (DeleteCanisterSnapshotArgs,),
    ) -> Managed {
        let id = args.canister_id;
        let canister = self.controlled(&id, &request.caller)?;
        match canister.snapshots.remove(&args.snapshot_id) {
            Some(_) => nothing(),
            None => Err(unknown(&id, &args.snapshot_id)),
        }
    }

    /// Charges a canister for work that the management canister does for it.
    pub(super) fn charge_work(&mut self, id: &Principal, instructions: u64) -> Result<(), Reject> {
        let fees = self.fees_of(id);
        let price = fees.instructions(instructions);
        self.existing(id)?.pay(id, price, &fees)?;
        self.burn(price);
        Ok(())
    }
}

fn listed(name: &[u8], snapshot: &Snapshot) -> Listed {
    Listed {
        id: name.to_vec(),
        taken_at_timestamp: snapshot.taken_ns,
        total_size: snapshot.bytes(),
    }
}

fn unknown(id: &Principal, name: &[u8]) -> Reject {
    Reject::new(
        ErrorCode::CanisterSnapshotNotFound,
        format!(
            "Could not find the snapshot ID {} for canister {id}",
            hex::encode(name)
        ),
    )
}
