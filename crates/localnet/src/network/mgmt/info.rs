//! What can be learnt of a canister, and randomness.

use candid::{Nat, Principal};
use ic_management_canister_types::{
    CanisterInfoArgs, CanisterInfoResult, CanisterLogFilter, CanisterLogRecord,
    CanisterMetadataArgs, CanisterMetadataResult, CanisterMetricsResult, CanisterStatusResult,
    CanisterStatusType, CyclesConsumed, FetchCanisterLogsArgs, FetchCanisterLogsResult,
    MemoryMetrics, QueryStats,
};
use pocket_ic::ErrorCode;
use rand_chacha::rand_core::Rng;

use super::{Managed, reply};
use crate::{
    machine::{MetadataVisibility, STABLE_PAGE_BYTES},
    network::{
        Network, Reject,
        call::Request,
        canister::{Canister, Status},
    },
};

impl Network {
    /// Figures are those of now. Queries are not counted: they leave nothing behind.
    pub(super) fn canister_status(&mut self, caller: &Principal, id: Principal) -> Managed {
        let (fees, admin) = (self.fees_of(&id), self.is_admin(caller, &id));
        let canister = self.existing(&id)?;
        if id != *caller && !admin && !canister.shows(&canister.settings.status_visibility, caller)
        {
            return Err(Reject::no_status(&id, caller));
        }
        let memory = memory_metrics(canister);
        let parts = [
            &memory.wasm_memory_size,
            &memory.stable_memory_size,
            &memory.wasm_chunk_store_size,
            &memory.wasm_binary_size,
            &memory.snapshots_size,
        ];
        let memory_size = parts
            .into_iter()
            .fold(Nat::default(), |sum, part| sum + part.clone());
        reply(&CanisterStatusResult {
            status: match canister.status {
                Status::Running => CanisterStatusType::Running,
                Status::Stopping(_) => CanisterStatusType::Stopping,
                Status::Stopped => CanisterStatusType::Stopped,
            },
            ready_for_migration: false,
            version: canister.version,
            settings: canister.settings.shown(&canister.controllers),
            module_hash: module_hash(canister),
            memory_size,
            memory_metrics: memory,
            cycles: canister.balance.into(),
            reserved_cycles: Nat::default(),
            idle_cycles_burned_per_day: canister.idle_per_day(&fees).into(),
            query_stats: QueryStats {
                num_calls_total: Nat::default(),
                num_instructions_total: Nat::default(),
                request_payload_bytes_total: Nat::default(),
                response_payload_bytes_total: Nat::default(),
            },
        })
    }

    pub(super) fn canister_info(&mut self, (args,): (CanisterInfoArgs,)) -> Managed {
        let canister = self.existing(&args.canister_id)?;
        let wanted = args.num_requested_changes.unwrap_or(0);
        let left_out = canister
            .history
            .len()
            .saturating_sub(usize::try_from(wanted).unwrap_or(usize::MAX));
        reply(&CanisterInfoResult {
            total_num_changes: canister.changes,
            recent_changes: canister.history.iter().skip(left_out).cloned().collect(),
            module_hash: module_hash(canister),
            controllers: canister.controllers.iter().copied().collect(),
        })
    }

    pub(super) fn fetch_logs(
        &mut self,
        caller: &Principal,
        (args,): (FetchCanisterLogsArgs,),
    ) -> Managed {
        let canister = self.existing(&args.canister_id)?;
        if !canister.shows(&canister.settings.log_visibility, caller) {
            return Err(Reject::new(
                ErrorCode::CanisterRejectedMessage,
                format!("Caller {caller} is not allowed to access canister logs"),
            ));
        }
        let wanted = |index: u64, time_ns: u64| match &args.filter {
            None => true,
            Some(CanisterLogFilter::ByIdx { start, end }) => (*start..*end).contains(&index),
            Some(CanisterLogFilter::ByTimestampNanos { start, end }) => {
                (*start..*end).contains(&time_ns)
            }
        };
        let records = canister
            .logs
            .iter()
            .filter(|(index, line)| wanted(*index, line.time_ns));
        reply(&FetchCanisterLogsResult {
            canister_log_records: records
                .map(|(index, line)| CanisterLogRecord {
                    idx: *index,
                    timestamp_nanos: line.time_ns,
                    content: line.text.clone(),
                })
                .collect(),
        })
    }

    /// What its cycles were consumed for.
    pub(super) fn canister_metrics(&mut self, caller: &Principal, id: Principal) -> Managed {
        let consumed = self.administered(&id, caller)?.consumed;
        reply(&CanisterMetricsResult {
            cycles_consumed: CyclesConsumed {
                memory: consumed.memory.into(),
                compute_allocation: consumed.compute_allocation.into(),
                ingress_induction: consumed.ingress.into(),
                instructions: consumed.instructions.into(),
                request_and_response_transmission: consumed.transmission.into(),
                uninstall: consumed.uninstall.into(),
                canister_creation: consumed.creation.into(),
                http_outcalls: Nat::default(),
                burned_cycles: consumed.burned.into(),
            },
        })
    }

    /// A custom section; private ones are for controllers.
    pub(super) fn canister_metadata(
        &mut self,
        request: &Request,
        (args,): (CanisterMetadataArgs,),
    ) -> Managed {
        let (id, name) = (args.canister_id, args.name);
        let canister = self.existing(&id)?;
        let machine = canister.machine.as_ref();
        let section = machine
            .ok_or_else(|| Reject::no_module(&id))?
            .module()
            .metadata(&name);
        let controls = canister.controllers.contains(&request.caller);
        match section {
            Some((visibility, bytes)) if visibility == MetadataVisibility::Public || controls => {
                reply(&CanisterMetadataResult {
                    value: bytes.to_vec(),
                })
            }
            _ => Err(Reject::new(
                ErrorCode::CanisterRejectedMessage,
                format!(
                    "Canister {id} has no metadata '{name}' that {} may read",
                    request.caller
                ),
            )),
        }
    }

    /// From the network's seed: the same calls get the same bytes.
    pub(super) fn raw_rand(&mut self) -> Managed {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        reply(&serde_bytes::ByteBuf::from(bytes))
    }
}

fn module_hash(canister: &Canister) -> Option<Vec<u8>> {
    canister
        .machine
        .as_ref()
        .map(|machine| machine.module().hash().to_vec())
}

fn memory_metrics(canister: &Canister) -> MemoryMetrics {
    let machine = canister.machine.as_ref();
    MemoryMetrics {
        wasm_memory_size: machine.map_or(0, |machine| machine.heap_bytes()).into(),
        stable_memory_size: machine
            .map_or(0, |machine| {
                machine.stable().size_pages() * STABLE_PAGE_BYTES
            })
            .into(),
        global_memory_size: Nat::default(),
        wasm_binary_size: canister.wasm_bytes.into(),
        custom_sections_size: Nat::default(),
        canister_history_size: Nat::default(),
        wasm_chunk_store_size: canister.chunk_bytes().into(),
        snapshots_size: canister.snapshot_bytes().into(),
        log_memory_store_size: Nat::default(),
    }
}
