//! Snapshots are taken, loaded, listed and deleted.

use std::collections::BTreeMap;

use candid::Principal;
use ic_management_canister_types::{
    ChangeDetails, DeleteCanisterSnapshotArgs, LoadCanisterSnapshotArgs, LoadSnapshotRecord,
    Snapshot as Listed, TakeCanisterSnapshotArgs,
};
use pocket_ic::ErrorCode;

use super::{Managed, nothing, reply};
use crate::{
    machine::Machine,
    network::{
        Network, Reject,
        call::Request,
        canister::LowMemory,
        money::Use,
        snapshot::{SNAPSHOTS_MAX, Snapshot},
    },
};

/// What it takes to take or load a snapshot, on the Internet Computer, and so much for each byte.
pub const SNAPSHOT_INSTRUCTIONS: u64 = 2_000_000_000;

impl Network {
    pub(super) fn take_snapshot(
        &mut self,
        request: &Request,
        (args,): (TakeCanisterSnapshotArgs,),
    ) -> Managed {
        let id = args.canister_id;
        let taken_ns = self.time_ns;
        let canister = self.controlled(&id, &request.caller)?;
        let Some(machine) = &canister.machine else {
            return Err(Reject::no_module(&id));
        };
        let snapshot = Snapshot {
            taken_ns,
            version: canister.version,
            module: machine.module().hash(),
            wasm_bytes: canister.wasm_bytes,
            image: machine.image(),
            certified_data: canister.certified_data.clone(),
            timer_ns: Some(canister.timer_ns),
            low_memory: Some(canister.low_memory),
            uploaded: None,
            chunks: canister.chunks.clone(),
        };
        let bytes = snapshot.bytes();
        let replaced = args.replace_snapshot.as_deref();
        let uninstalls = args.uninstall_code == Some(true);
        // What is taken away in return makes room.
        let new = if uninstalls { 0 } else { bytes };
        let work = SNAPSHOT_INSTRUCTIONS.saturating_add(bytes);
        self.check_new_snapshot(&id, replaced, new, work)?;
        let name = self.put_snapshot(&id, replaced, snapshot)?;
        if uninstalls {
            self.uninstall(id, Some((request, args.sender_canister_version)));
        }
        reply(&Listed {
            id: name,
            taken_at_timestamp: taken_ns,
            total_size: bytes,
        })
    }

    /// Whether a canister may have one more snapshot, of so many bytes, in the place of one where one is
    /// named; it pays for so much work.
    pub(super) fn check_new_snapshot(
        &mut self,
        id: &Principal,
        replaced: Option<&[u8]>,
        bytes: u64,
        work: u64,
    ) -> Result<(), Reject> {
        let canister = self.existing(id)?;
        let freed = match replaced {
            Some(old) => {
                let old = canister
                    .snapshots
                    .get(old)
                    .ok_or_else(|| unknown(id, old))?;
                old.bytes()
            }
            None if canister.snapshots.len() >= SNAPSHOTS_MAX => {
                return Err(Reject::new(
                    ErrorCode::CanisterRejectedMessage,
                    format!(
                        "Canister {id} has reached the maximum number of snapshots allowed: {SNAPSHOTS_MAX}."
                    ),
                ));
            }
            None => 0,
        };
        self.charge_work(id, work, bytes.saturating_sub(freed))
    }

    /// Keeps a snapshot; its id.
    pub(super) fn put_snapshot(
        &mut self,
        id: &Principal,
        replaced: Option<&[u8]>,
        snapshot: Snapshot,
    ) -> Result<Vec<u8>, Reject> {
        let canister = self.existing(id)?;
        canister.snapshots_taken += 1;
        let name = [&canister.snapshots_taken.to_be_bytes(), id.as_slice()].concat();
        if let Some(old) = replaced {
            canister.snapshots.remove(old);
        }
        canister.snapshots.insert(name.clone(), snapshot);
        Ok(name)
    }

    /// Code, memories and certified data are those of the snapshot; the version still rises. A snapshot of
    /// another canister of the subnet will do, if the caller controls both. Timer and low memory are those
    /// of an upload that has them; else they stay as they are.
    pub(super) fn load_snapshot(
        &mut self,
        request: &Request,
        (args,): (LoadCanisterSnapshotArgs,),
    ) -> Managed {
        let (id, time_ns, name) = (args.canister_id, self.time_ns, args.snapshot_id);
        let canister = self.controlled(&id, &request.caller)?;
        if !canister.contexts.is_empty() {
            return Err(Reject::new(
                ErrorCode::CanisterNotStopped,
                format!(
                    "Canister {id} waits for {} calls or more; stop it before a snapshot is loaded",
                    canister.contexts.len()
                ),
            ));
        }
        let subnet = canister.subnet;
        let owner = owner(&name).ok_or_else(|| unknown(&id, &name))?;
        if self.subnet_of(&owner) != Some(subnet) {
            return Err(unknown(&id, &name));
        }
        let of = self.controlled(&owner, &request.caller)?;
        let snapshot = of.snapshots.get(&name).ok_or_else(|| unknown(&id, &name))?;
        let bytes = snapshot.bytes();
        let held = self.existing(&id)?.machine_bytes();
        let work = SNAPSHOT_INSTRUCTIONS.saturating_add(bytes);
        self.charge_work(&id, work, bytes.saturating_sub(held))?;

        let loaded = self.instantiate(&owner, &name)?;
        let canister = self.existing(&id)?;
        if let Some(status) = loaded.low_memory {
            let low = canister.is_low(loaded.machine.heap_bytes());
            if low != (status != LowMemory::Enough) {
                return Err(unfit(
                    "the snapshot's state of the low memory hook is not that of its heap",
                ));
            }
            canister.low_memory = status;
        }
        canister.wasm_bytes = loaded.wasm.len() as u64;
        canister.certified_data = loaded.certified_data;
        canister.chunks = loaded.chunks;
        let hash = loaded.machine.module().hash();
        canister.machine = Some(loaded.machine);
        canister.version += 1;
        canister.installed_ns = time_ns;
        let record = LoadSnapshotRecord {
            from_canister_id: (owner != id).then_some(owner),
            ..loaded.record
        };
        let details = ChangeDetails::LoadSnapshot(record);
        canister.record(time_ns, request, args.sender_canister_version, details);
        self.modules.entry(hash).or_insert(loaded.wasm);
        if let Some(timer_ns) = loaded.timer_ns {
            self.set_timer(&id, timer_ns);
        }
        self.note_code(&id);
        self.note_memory(&id);
        nothing()
    }

    /// What a snapshot makes of a canister.
    fn instantiate(&self, owner: &Principal, name: &[u8]) -> Result<Loaded, Reject> {
        let snapshot = &self.canisters[owner].snapshots[name];
        let wasm = match &snapshot.uploaded {
            Some(wasm) => Some(wasm.as_slice()),
            None => self.modules.get(&snapshot.module).map(Vec::as_slice),
        };
        let wasm = wasm.ok_or_else(|| unfit("the snapshot's module is gone"))?;
        let module = self.compiler.compile(wasm).map_err(|error| {
            let text = format!("Canister's Wasm module is not valid: {error}");
            Reject::new(ErrorCode::CanisterInvalidWasm, text)
        })?;
        let machine = Machine::from_image(&module, &snapshot.image)
            .map_err(|trap| unfit(&trap.to_string()))?
            .ok_or_else(|| unfit("the snapshot does not fit its module"))?;
        let told = snapshot.uploaded.is_some();
        Ok(Loaded {
            machine,
            wasm: wasm.to_vec(),
            certified_data: snapshot.certified_data.clone(),
            chunks: snapshot.chunks.clone(),
            timer_ns: snapshot.timer_ns.filter(|_| told),
            low_memory: snapshot.low_memory.filter(|_| told),
            record: LoadSnapshotRecord {
                canister_version: snapshot.version,
                snapshot_id: name.to_vec(),
                taken_at_timestamp: snapshot.taken_ns,
                source: snapshot.source(),
                from_canister_id: None,
            },
        })
    }

    pub(super) fn list_snapshots(&mut self, caller: &Principal, id: Principal) -> Managed {
        let canister = self.existing(&id)?;
        if !canister.shows(&canister.settings.snapshot_visibility, caller) {
            return Err(Reject::not_controller(&id, caller));
        }
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

    /// Charges a canister for work that the management canister does for it, and that takes so many bytes
    /// more.
    pub(super) fn charge_work(
        &mut self,
        id: &Principal,
        instructions: u64,
        bytes: u64,
    ) -> Result<(), Reject> {
        let fees = self.fees_of(id);
        let price = fees.instructions(instructions);
        let canister = self.existing(id)?;
        if bytes > 0 {
            canister.afford(bytes, price, &fees)?;
        }
        canister.pay(id, price, &fees)?;
        self.consume(id, Use::Instructions, price);
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

/// A snapshot, ready to become a canister. Timer and low memory are there where they are to be set.
struct Loaded {
    machine: Machine,
    wasm: Vec<u8>,
    certified_data: Vec<u8>,
    chunks: BTreeMap<[u8; 32], Vec<u8>>,
    timer_ns: Option<u64>,
    low_memory: Option<LowMemory>,
    record: LoadSnapshotRecord,
}

fn unfit(text: &str) -> Reject {
    Reject::new(ErrorCode::InvalidManagementPayload, text)
}

/// The canister whose snapshot has that id.
fn owner(name: &[u8]) -> Option<Principal> {
    Principal::try_from_slice(name.get(8..)?).ok()
}

pub fn unknown(id: &Principal, name: &[u8]) -> Reject {
    Reject::new(
        ErrorCode::CanisterSnapshotNotFound,
        format!(
            "Could not find the snapshot ID {} for canister {id}",
            hex::encode(name)
        ),
    )
}
