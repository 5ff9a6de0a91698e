//! Code comes, changes and goes; also in chunks.

use candid::Principal;
use ic_management_canister_types::{
    CanisterInstallMode, ChangeDetails, ChunkHash, CodeDeploymentMode, CodeDeploymentRecord,
    InstallChunkedCodeArgs, InstallCodeArgs, UninstallCodeArgs, UpgradeFlags, UploadChunkArgs,
    WasmMemoryPersistence,
};
use pocket_ic::ErrorCode;
use sha2::{Digest, Sha256};

use super::{Managed, nothing, reply};
use crate::{
    fees::Fees,
    machine::{Machine, MetadataVisibility, Module, Outcome, Upgrade, WASM_BYTES_MAX},
    network::{
        Account, AccountKind, Network, Reject,
        call::Request,
        canister::Canister,
        execute::{Circumstances, INSTALL_INSTRUCTIONS, view, with_machine},
        money::{CHUNK_BYTES, Use},
    },
};

/// The chunk store of the Internet Computer: chunks of at most 1 MiB, 100 of them.
const CHUNK_BYTES_MAX: usize = CHUNK_BYTES as usize;
pub const CHUNKS_MAX: usize = 100;
/// What it takes to store a chunk, on the Internet Computer.
const CHUNK_INSTRUCTIONS: u64 = 200_000_000;
/// The private custom section of code that can go on with the heap of the code before it.
const KEEPS_HEAP: &str = "enhanced-orthogonal-persistence";

impl Network {
    pub(super) fn install_code(
        &mut self,
        request: &Request,
        (args,): (InstallCodeArgs,),
    ) -> Managed {
        self.install(
            request,
            args.canister_id,
            args.mode,
            &args.wasm_module,
            args.arg,
            args.sender_canister_version,
        )
    }

    pub(super) fn install_chunked_code(
        &mut self,
        request: &Request,
        (args,): (InstallChunkedCodeArgs,),
    ) -> Managed {
        let target = args.target_canister;
        let store = args.store_canister.unwrap_or(target);
        let subnet = self.controlled(&target, &request.caller)?.subnet;
        if self.subnet_of(&store) != Some(subnet) {
            return Err(Reject::new(
                ErrorCode::CanisterNotFound,
                format!("The store canister {store} was not found on the subnet of {target}"),
            ));
        }
        let store = self.controlled_or_self(&store, &request.caller)?;
        let wrong = |text: String| Reject::new(ErrorCode::InvalidManagementPayload, text);
        let mut wasm = vec![];
        for ChunkHash { hash } in &args.chunk_hashes_list {
            let known = <[u8; 32]>::try_from(hash.as_slice()).ok();
            let chunk = known.and_then(|hash| store.chunks.get(&hash));
            let chunk = chunk.ok_or_else(|| {
                let hash = hex::encode(hash);
                wrong(format!("the chunk {hash} is not in the chunk store"))
            })?;
            // A chunk may be named more than once.
            if (wasm.len() + chunk.len()) as u64 > WASM_BYTES_MAX {
                return Err(wrong(format!(
                    "the chunks have more than {WASM_BYTES_MAX} bytes"
                )));
            }
            wasm.extend_from_slice(chunk);
        }
        let actual = Sha256::digest(&wasm);
        if actual[..] != args.wasm_module_hash {
            let actual = hex::encode(actual);
            return Err(wrong(format!(
                "the chunks have the hash {actual}, not the one that was given"
            )));
        }
        let version = args.sender_canister_version;
        self.install(request, target, args.mode, &wasm, args.arg, version)
    }

    fn install(
        &mut self,
        request: &Request,
        id: Principal,
        mode: CanisterInstallMode,
        wasm: &[u8],
        arg: Vec<u8>,
        sender_version: Option<u64>,
    ) -> Managed {
        self.controlled(&id, &request.caller)?;
        let module = self.compiler.compile(wasm).map_err(|error| {
            Reject::new(
                ErrorCode::CanisterInvalidWasm,
                format!("Error from Canister {id}: Canister's Wasm module is not valid: {error}"),
            )
        })?;
        let fees = self.fees_of(&id);
        let prepaid = fees.execution(INSTALL_INSTRUCTIONS);
        let canister = self.existing(&id)?;
        let how = check_mode(&id, &mode, canister.machine.as_ref(), &module)?;
        canister.pay(&id, prepaid, &fees)?;
        // The new module is a part of what the canister must be able to keep.
        let wasm_bytes_before = std::mem::replace(&mut canister.wasm_bytes, wasm.len() as u64);
        let bytes_in = (wasm.len() + arg.len()) as u64;
        let (mode, outcome) = self.run_install(request, &id, mode, &module, arg, how, &fees);
        let refund = fees
            .instructions(INSTALL_INSTRUCTIONS - outcome.usage.instructions)
            .min(prepaid);
        let kind = match mode {
            CodeDeploymentMode::Upgrade => AccountKind::Upgrade,
            _ => AccountKind::Install,
        };
        let method = request.method.clone();
        let account = Account {
            id: self.accounts.next(),
            parent: request.parent,
            cycles_prepaid: prepaid,
            cycles_refunded: refund,
            bytes_in,
            ..self.account_of(id, request.caller, kind, method, &outcome)
        };
        self.accounts.keep(account);
        self.count_instructions(&id, outcome.usage.instructions);
        self.consume(&id, Use::Instructions, prepaid - refund);
        let canister = self.existing(&id)?;
        canister.balance += refund;
        if let Err(trap) = outcome.result {
            canister.wasm_bytes = wasm_bytes_before;
            canister.log(outcome.logs);
            return Err(Reject::trapped(&id, &trap));
        }
        let hash = module.hash();
        self.modules.entry(hash).or_insert_with(|| wasm.to_vec());
        let details = CodeDeploymentRecord {
            mode,
            module_hash: hash.to_vec(),
        };
        self.settle_install(request, &id, details, sender_version, outcome)
    }

    /// What new code did to its canister, besides its memories.
    fn settle_install(
        &mut self,
        request: &Request,
        id: &Principal,
        details: CodeDeploymentRecord,
        sender_version: Option<u64>,
        outcome: Outcome,
    ) -> Managed {
        let time_ns = self.time_ns;
        let canister = self.existing(id)?;
        // An upgrade keeps both.
        if details.mode != CodeDeploymentMode::Upgrade {
            canister.clear_log();
            canister.certified_data.clear();
        }
        canister.log(outcome.logs);
        canister.balance -= outcome.cycles_burned;
        if let Some(data) = outcome.certified_data {
            canister.certified_data = data;
        }
        canister.version += 1;
        canister.installed_ns = time_ns;
        let details = ChangeDetails::CodeDeployment(details);
        canister.record(time_ns, request, sender_version, details);
        self.consume(id, Use::Burned, outcome.cycles_burned);
        // A timer does not outlive the code that set it.
        self.set_timer(id, outcome.timer_ns.unwrap_or(0));
        self.note_code(id);
        self.note_memory(id);
        nothing()
    }

    #[allow(clippy::too_many_arguments)] // every one of them differs from call to call
    fn run_install(
        &mut self,
        request: &Request,
        id: &Principal,
        mode: CanisterInstallMode,
        module: &Module,
        arg: Vec<u8>,
        how: Upgrade,
        fees: &Fees,
    ) -> (CodeDeploymentMode, Outcome) {
        let circumstances = Circumstances::new(
            *id,
            request.caller,
            self.time_ns,
            INSTALL_INSTRUCTIONS,
            &self.root_key,
            fees,
        );
        let canister = self.canisters.get_mut(id).expect("the caller looked");
        match mode {
            CanisterInstallMode::Install => (
                CodeDeploymentMode::Install,
                fresh(canister, module, arg, circumstances),
            ),
            CanisterInstallMode::Reinstall => (
                CodeDeploymentMode::Reinstall,
                fresh(canister, module, arg, circumstances),
            ),
            CanisterInstallMode::Upgrade(_) => (
                CodeDeploymentMode::Upgrade,
                with_machine(canister, circumstances, |machine, view| {
                    machine.upgrade(module, arg, view, how)
                })
                .expect("the caller looked"),
            ),
        }
    }

    pub(super) fn uninstall_code(
        &mut self,
        request: &Request,
        (args,): (UninstallCodeArgs,),
    ) -> Managed {
        self.administered(&args.canister_id, &request.caller)?;
        let by = Some((request, args.sender_canister_version));
        self.uninstall(args.canister_id, by);
        nothing()
    }

    pub(super) fn upload_chunk(
        &mut self,
        caller: &Principal,
        (args,): (UploadChunkArgs,),
    ) -> Managed {
        let UploadChunkArgs { canister_id, chunk } = args;
        let canister = self.controlled_or_self(&canister_id, caller)?;
        check_chunk(&chunk)?;
        let hash: [u8; 32] = Sha256::digest(&chunk).into();
        let full = !canister.chunks.contains_key(&hash) && canister.chunks.len() == CHUNKS_MAX;
        if full {
            return Err(Reject::new(
                ErrorCode::InvalidManagementPayload,
                format!("the chunk store holds at most {CHUNKS_MAX} chunks"),
            ));
        }
        let new = !canister.chunks.contains_key(&hash);
        let bytes = if new { CHUNK_BYTES } else { 0 };
        self.charge_work(&canister_id, CHUNK_INSTRUCTIONS, bytes)?;
        let canister = self.existing(&canister_id)?;
        canister.chunks.insert(hash, chunk);
        reply(&ChunkHash {
            hash: hash.to_vec(),
        })
    }

    pub(super) fn stored_chunks(&mut self, caller: &Principal, id: Principal) -> Managed {
        let canister = self.controlled_or_self(&id, caller)?;
        let hashes: Vec<_> = canister
            .chunks
            .keys()
            .map(|hash| ChunkHash {
                hash: hash.to_vec(),
            })
            .collect();
        reply(&hashes)
    }

    pub(super) fn clear_chunk_store(&mut self, caller: &Principal, id: Principal) -> Managed {
        self.controlled_or_self(&id, caller)?.chunks.clear();
        nothing()
    }
}

/// Whether a chunk may be stored.
pub fn check_chunk(chunk: &[u8]) -> Result<(), Reject> {
    let len = chunk.len();
    if len > CHUNK_BYTES_MAX {
        let text = format!("a chunk has at most {CHUNK_BYTES_MAX} bytes, not {len}");
        return Err(Reject::new(ErrorCode::InvalidManagementPayload, text));
    }
    Ok(())
}

/// Whether there may be code in that mode, and how it replaces what is there.
fn check_mode(
    id: &Principal,
    mode: &CanisterInstallMode,
    old: Option<&Machine>,
    new: &Module,
) -> Result<Upgrade, Reject> {
    match (mode, old) {
        (CanisterInstallMode::Install, Some(_)) => Err(Reject::new(
            ErrorCode::CanisterNonEmpty,
            format!(
                "Canister {id} cannot be installed because the canister is not empty. Try installing with mode='reinstall' instead."
            ),
        )),
        (CanisterInstallMode::Upgrade(_), None) => Err(Reject::no_module(id)),
        (CanisterInstallMode::Upgrade(flags), Some(old)) => {
            check_upgrade(flags.unwrap_or_default(), old.module(), new)
        }
        (CanisterInstallMode::Install | CanisterInstallMode::Reinstall, _) => {
            Ok(Upgrade::default())
        }
    }
}

/// Code that says that it goes on with its heap must be asked whether it shall, and no other may be.
fn check_upgrade(flags: UpgradeFlags, old: &Module, new: &Module) -> Result<Upgrade, Reject> {
    let says = |module: &Module| {
        let section = module.metadata(KEEPS_HEAP);
        section.is_some_and(|(visibility, _)| visibility == MetadataVisibility::Private)
    };
    let refused = |text: &str| Err(Reject::new(ErrorCode::CanisterContractViolation, text));
    let keep_heap = flags.wasm_memory_persistence == Some(WasmMemoryPersistence::Keep);
    if flags.wasm_memory_persistence.is_none() && says(old) {
        return refused(
            "Missing upgrade option: Enhanced orthogonal persistence requires the `wasm_memory_persistence` upgrade option.",
        );
    }
    if keep_heap && !says(new) {
        return refused(
            "Invalid upgrade option: The `wasm_memory_persistence: opt Keep` upgrade option requires that the new canister module supports enhanced orthogonal persistence.",
        );
    }
    Ok(Upgrade {
        skip_pre_upgrade: flags.skip_pre_upgrade.unwrap_or(false),
        keep_heap,
    })
}

/// New code over nothing. What was there before stays if it fails.
fn fresh(
    canister: &mut Canister,
    module: &Module,
    arg: Vec<u8>,
    circumstances: Circumstances,
) -> Outcome {
    let (machine, outcome) = Machine::install(module, arg, &view(canister, circumstances));
    if let Some(machine) = machine {
        canister.machine = Some(machine);
    }
    outcome
}
