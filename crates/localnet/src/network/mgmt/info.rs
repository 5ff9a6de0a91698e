//! What can be learnt of canisters, and randomness.

use candid::{Nat, Principal};
use ic_management_canister_types::{
    CanisterInfoArgs, CanisterInfoResult, CanisterLogFilter, CanisterLogRecord,
    CanisterStatusResult, CanisterStatusType, DefiniteCanisterSettings, EnvironmentVariable,
    FetchCanisterLogsArgs, FetchCanisterLogsResult, LogVisibility, MemoryMetrics, QueryStats,
    SnapshotVisibility, StatusVisibility,
};
use pocket_ic::ErrorCode;
use rand_chacha::rand_core::Rng;

use super::{Managed, only_canisters, reply};
use crate::{
    machine::STABLE_PAGE_BYTES,
    network::{
        Network, Reject,
        call::Request,
        canister::{Canister, Status},
    },
};

impl Network {
    /// Figures are those of now. Queries are not counted: they leave nothing behind.
    pub(super) fn canister_status(&mut self, caller: &Principal, id: Principal) -> Managed {
        let fees = self.fees_of(&id);
        let canister = self.controlled_or_self(&id, caller)?;
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
            settings: settings(canister),
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

    pub(super) fn canister_info(
        &mut self,
        request: &Request,
        (args,): (CanisterInfoArgs,),
    ) -> Managed {
        only_canisters(request)?;
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
        if !canister.settings.logs_public && !canister.controllers.contains(caller) {
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

    /// From the network's seed: the same calls get the same bytes.
    pub(super) fn raw_rand(&mut self, request: &Request) -> Managed {
        only_canisters(request)?;
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
    let chunks: usize = canister.chunks.values().map(Vec::len).sum();
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
        wasm_chunk_store_size: chunks.into(),
        snapshots_size: canister.snapshot_bytes().into(),
        log_memory_store_size: Nat::default(),
    }
}

fn settings(canister: &Canister) -> DefiniteCanisterSettings {
    let settings = &canister.settings;
    DefiniteCanisterSettings {
        controllers: canister.controllers.iter().copied().collect(),
        compute_allocation: settings.compute_allocation.into(),
        memory_allocation: settings.memory_allocation.into(),
        freezing_threshold: settings.freezing_threshold.into(),
        reserved_cycles_limit: settings.reserved_cycles_limit.into(),
        minimum_incoming_canister_call_cycles: Nat::default(),
        log_visibility: if settings.logs_public {
            LogVisibility::Public
        } else {
            LogVisibility::Controllers
        },
        log_memory_limit: Nat::default(),
        snapshot_visibility: SnapshotVisibility::Controllers,
        status_visibility: StatusVisibility::Controllers,
        wasm_memory_limit: settings.wasm_memory_limit.into(),
        wasm_memory_threshold: settings.wasm_memory_threshold.into(),
        environment_variables: canister
            .environment
            .iter()
            .map(|(name, value)| EnvironmentVariable {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
    }
}
