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
    machine::{Machine, Module, Outcome},
    network::{
        Network, Reject,
        call::Request,
        canister::Canister,
        execute::{Circumstances, INSTALL_INSTRUCTIONS, view, with_machine},
    },
};

/// The chunk store of the Internet Computer: chunks of at most 1 MiB, 100 of them.
const CHUNK_BYTES_MAX: usize = 1 << 20;
const CHUNKS_MAX: usize = 100;

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
        )
    }

    pub(super) fn install_chunked_code(
        &mut self,
        request: &Request,
        (args,): (InstallChunkedCodeArgs,),
    ) -> Managed {
        let target = args.target_canister;
        let store = args.store_canister.unwrap_or(target);
        self.controlled(&target, &request.caller)?;
        let store = self.controlled_or_self(&store, &request.caller)?;
        let mut wasm = vec![];
        for ChunkHash { hash } in &args.chunk_hashes_list {
            let chunk = <[u8; 32]>::try_from(hash.as_slice())
                .ok()
                .and_then(|hash| store.chunks.get(&hash));
            wasm.extend_from_slice(chunk.ok_or_else(|| {
                Reject::new(
                    ErrorCode::InvalidManagementPayload,
                    format!("the chunk {} is not in the chunk store", hex::encode(hash)),
                )
            })?);
        }
        let actual = Sha256::digest(&wasm);
        if actual[..] != args.wasm_module_hash {
            return Err(Reject::new(
                ErrorCode::InvalidManagementPayload,
                format!(
                    "the chunks have the hash {}, not the one that was given",
                    hex::encode(actual)
                ),
            ));
        }
        self.install(request, target, args.mode, &wasm, args.arg)
    }

    fn install(
        &mut self,
        request: &Request,
        id: Principal,
        mode: CanisterInstallMode,
        wasm: &[u8],
        arg: Vec<u8>,
    ) -> Managed {
        let time_ns = self.time_ns;
        self.controlled(&id, &request.caller)?;
        let module = self.compiler.compile(wasm).map_err(|error| {
            Reject::new(
                ErrorCode::CanisterInvalidWasm,
                format!("Error from Canister {id}: Canister's Wasm module is not valid: {error}"),
            )
        })?;
        let root_key = std::sync::Arc::clone(&self.root_key);
        let canister = self.existing(&id)?;
        let circumstances =
            Circumstances::new(id, request.caller, time_ns, INSTALL_INSTRUCTIONS, &root_key);
        let (mode, outcome) = match mode {
            CanisterInstallMode::Install if canister.machine.is_some() => {
                return Err(Reject::new(
                    ErrorCode::CanisterNonEmpty,
                    format!(
                        "Canister {id} cannot be installed because the canister is not empty. Try installing with mode='reinstall' instead."
                    ),
                ));
            }
            CanisterInstallMode::Install => (
                CodeDeploymentMode::Install,
                fresh(canister, &module, arg, circumstances),
            ),
            CanisterInstallMode::Reinstall => (
                CodeDeploymentMode::Reinstall,
                fresh(canister, &module, arg, circumstances),
            ),
            CanisterInstallMode::Upgrade(flags) => {
                let skip = skips_pre_upgrade(flags)?;
                let outcome = with_machine(canister, circumstances, |machine, view| {
                    machine.upgrade(&module, arg, view, skip)
                });
                (
                    CodeDeploymentMode::Upgrade,
                    outcome.ok_or_else(|| Reject::no_module(&id))?,
                )
            }
        };
        let Outcome {
            result,
            logs,
            balance,
            certified_data,
            timer_ns,
            ..
        } = outcome;
        canister.log(logs);
        result.map_err(|trap| Reject::trapped(&id, &trap))?;
        canister.balance = balance;
        // A timer does not outlive the code that set it.
        canister.timer_ns = timer_ns.unwrap_or(0);
        if let Some(data) = certified_data {
            canister.certified_data = data;
        }
        canister.version += 1;
        let module_hash = module.hash().to_vec();
        canister.record(
            time_ns,
            request,
            ChangeDetails::CodeDeployment(CodeDeploymentRecord { mode, module_hash }),
        );
        nothing()
    }

    pub(super) fn uninstall_code(
        &mut self,
        request: &Request,
        (args,): (UninstallCodeArgs,),
    ) -> Managed {
        let (id, time_ns) = (args.canister_id, self.time_ns);
        let canister = self.controlled(&id, &request.caller)?;
        canister.machine = None;
        canister.timer_ns = 0;
        canister.certified_data.clear();
        canister.chunks.clear();
        canister.version += 1;
        canister.record(time_ns, request, ChangeDetails::CodeUninstall);
        let open: Vec<_> = self
            .contexts
            .iter()
            .filter(|(_, context)| context.canister == id)
            .map(|(number, _)| *number)
            .collect();
        for number in open {
            let reject = Reject::new(
                ErrorCode::CanisterRejectedMessage,
                "Canister has been uninstalled.",
            );
            self.reject_context(number, reject);
            self.contexts.remove(&number);
        }
        nothing()
    }

    pub(super) fn upload_chunk(
        &mut self,
        caller: &Principal,
        (args,): (UploadChunkArgs,),
    ) -> Managed {
        let UploadChunkArgs { canister_id, chunk } = args;
        let canister = self.controlled_or_self(&canister_id, caller)?;
        if chunk.len() > CHUNK_BYTES_MAX {
            return Err(Reject::new(
                ErrorCode::InvalidManagementPayload,
                format!(
                    "a chunk has at most {CHUNK_BYTES_MAX} bytes, not {}",
                    chunk.len()
                ),
            ));
        }
        let hash: [u8; 32] = Sha256::digest(&chunk).into();
        if !canister.chunks.contains_key(&hash) && canister.chunks.len() == CHUNKS_MAX {
            return Err(Reject::new(
                ErrorCode::InvalidManagementPayload,
                format!("the chunk store holds at most {CHUNKS_MAX} chunks"),
            ));
        }
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
        canister.certified_data.clear();
    }
    outcome
}

/// Whether `canister_pre_upgrade` is left out. Heap memory is always replaced here.
fn skips_pre_upgrade(flags: Option<UpgradeFlags>) -> Result<bool, Reject> {
    let Some(flags) = flags else { return Ok(false) };
    if flags.wasm_memory_persistence == Some(WasmMemoryPersistence::Keep) {
        return Err(Reject::new(
            ErrorCode::InvalidManagementPayload,
            "this network always replaces the heap on an upgrade; it does not keep it",
        ));
    }
    Ok(flags.skip_pre_upgrade.unwrap_or(false))
}
