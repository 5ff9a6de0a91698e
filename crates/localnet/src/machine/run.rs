//! Runs entry points, all or nothing.

use sha2::{Digest, Sha256};

use super::{
    Context, Entry, Image, Module, Outcome, Response, StableMemory, Trap, Usage,
    host::{Kind, Run},
    instance::{Change, Live},
    shape,
    stable::{Copied, STABLE_PAGE_BYTES},
};

/// Instructions for each page of the heap or of stable memory that a message writes to.
pub const DIRTY_PAGE_COST: u64 = 1_000;

/// A canister's code with its heap, globals and stable memory.
pub struct Machine {
    live: Live,
}

/// How code is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upgrade {
    pub skip_pre_upgrade: bool,
    /// The heap stays as it is, and the new code's segments are not written to it.
    pub keep_heap: bool,
}

/// What a composite query changed so far. It is kept between the query and its callbacks, in which other
/// queries of the same canister may run, and dropped at the end.
#[derive(Default)]
pub struct Scratch(Option<Change>);

impl Machine {
    /// A new canister: start function, then `canister_init`. No machine where one of them trapped.
    pub fn install(module: &Module, arg: Vec<u8>, context: &Context) -> (Option<Self>, Outcome) {
        let mut machine = match Live::new(module) {
            Ok(live) => Self { live },
            Err(trap) => return (None, failed(trap, context)),
        };
        machine.begin(context.instructions_max);
        let result = machine
            .start(context)
            .and_then(|()| machine.enter_init("canister_init", arg, context))
            .and_then(|()| machine.afford(0));
        let outcome = machine.outcome(result, context);
        machine.end(outcome.result.is_ok());
        (outcome.result.is_ok().then_some(machine), outcome)
    }

    /// New code, stable memory kept: `canister_pre_upgrade` of the old code unless it is skipped, start
    /// function and `canister_post_upgrade` of the new. A trap anywhere leaves everything as it was.
    pub fn upgrade(
        &mut self,
        module: &Module,
        arg: Vec<u8>,
        context: &Context,
        how: Upgrade,
    ) -> Outcome {
        let mut before = nothing_done(Ok(()), context);
        let memory_bytes = self.memory_bytes();
        self.begin(context.instructions_max);
        if !how.skip_pre_upgrade {
            let run = self.run_of(Kind::PRE_UPGRADE, context);
            self.live.host_mut().run = run;
            let result = self.call_optional("canister_pre_upgrade");
            before = self.outcome(result, context);
            if before.result.is_err() {
                self.end(false);
                return before;
            }
        }
        let new = Live::new(module).and_then(|mut live| {
            if how.keep_heap {
                live.inherit(&self.live)?;
            }
            Ok(Self { live })
        });
        let mut new = match new {
            Ok(new) => new,
            Err(trap) => {
                self.end(false);
                before.result = Err(trap);
                return before;
            }
        };
        // What pre_upgrade wrote is still in the undo log: the new machine goes on in that transaction.
        new.live.host_mut().stable = std::mem::take(&mut self.live.host_mut().stable);
        let rest = Context {
            instructions_max: context.instructions_max - before.usage.instructions,
            balance: before.balance,
            ..*context
        };
        new.live.set_fuel(rest.instructions_max);
        let result = new
            .start(&rest)
            .and_then(|()| new.enter_init("canister_post_upgrade", arg, &rest))
            .and_then(|()| new.afford(memory_bytes));
        let mut outcome = new.outcome(result, &rest);
        outcome.usage.instructions += before.usage.instructions;
        outcome.usage.heap_pages_dirtied += before.usage.heap_pages_dirtied;
        outcome.usage.stable_bytes_read += before.usage.stable_bytes_read;
        outcome.usage.stable_bytes_written += before.usage.stable_bytes_written;
        outcome.cycles_burned += before.cycles_burned;
        outcome.certified_data = outcome.certified_data.or(before.certified_data);
        before.logs.append(&mut outcome.logs);
        outcome.logs = before.logs;
        if outcome.result.is_ok() {
            new.end(true);
            *self = new;
        } else {
            self.live.host_mut().stable = std::mem::take(&mut new.live.host_mut().stable);
            self.end(false);
        }
        outcome
    }

    /// Runs one entry point. Queries and inspections leave nothing behind.
    pub fn run(&mut self, entry: Entry, context: &Context) -> Outcome {
        let discard = matches!(
            entry,
            Entry::Query { .. } | Entry::ReplicatedQuery { .. } | Entry::Inspect { .. }
        );
        if matches!(entry, Entry::Update { .. })
            && let Err(trap) = within(self.heap_bytes(), context.heap_bytes_max)
        {
            return failed(trap, context);
        }
        self.begin(context.instructions_max);
        let result = self.enter(entry, context);
        let outcome = self.outcome(result, context);
        self.end(outcome.result.is_ok() && !discard);
        outcome
    }

    /// Runs a composite query or a callback of one on what it changed so far, and leaves the canister as
    /// it is. A trap takes back what this entry point did.
    pub fn run_composite(
        &mut self,
        scratch: &mut Scratch,
        entry: Entry,
        context: &Context,
    ) -> Outcome {
        self.live.begin();
        if let Some(change) = scratch.0.take() {
            self.live.put_again(change);
        }
        let outcome = {
            self.live.set_fuel(context.instructions_max);
            let result = self.enter(entry, context);
            self.outcome(result, context)
        };
        let change = self.live.take_back();
        if outcome.result.is_ok() {
            scratch.0 = Some(change);
        }
        outcome
    }

    /// Heap, globals and stable memory as they are between executions.
    pub fn image(&self) -> Image {
        Image::new(self.live.heap(), self.live.globals(), self.stable())
    }

    /// The image without the bytes of its memories.
    pub(crate) fn shape(&self) -> Image {
        let mut stable = StableMemory::default();
        stable.grow(self.stable().size_pages());
        Image::new(&[], self.live.globals(), &stable)
    }

    /// The heap as it is between executions.
    pub(crate) fn heap(&self) -> &[u8] {
        self.live.heap()
    }

    /// What [`Machine::image`] was taken of. None where the image is of another module.
    pub fn from_image(module: &Module, image: &Image) -> Result<Option<Self>, Trap> {
        let Some(stable) = image.stable() else {
            return Ok(None);
        };
        let live = Live::from_image(module, &image.heap, image.globals())?;
        Ok(live.map(|live| {
            let mut machine = Self { live };
            machine.set_stable(stable);
            machine
        }))
    }

    pub fn module(&self) -> &Module {
        self.live.module()
    }

    pub fn stable(&self) -> &StableMemory {
        &self.live.host().stable
    }

    /// See [`StableMemory::copy_into`].
    pub fn copy_stable_into(&mut self, copied: &mut Copied, bytes: &mut Vec<u8>) -> bool {
        self.live.host_mut().stable.copy_into(copied, bytes)
    }

    pub fn set_stable(&mut self, stable: StableMemory) {
        self.live.host_mut().stable = stable;
    }

    pub fn heap_bytes(&self) -> u64 {
        self.live.heap().len() as u64
    }

    /// SHA-256 of heap, globals and stable memory.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.module().hash());
        hash.update(self.heap_bytes().to_le_bytes());
        hash.update(self.live.heap());
        for value in self.live.globals() {
            hash.update(format!("{value:?}"));
        }
        self.stable().digest(&mut hash);
        hash.finalize().into()
    }

    /// Heap and stable memory as they are now.
    fn memory_bytes(&self) -> u64 {
        self.live.live_heap_bytes() + self.stable().size_pages() * STABLE_PAGE_BYTES
    }

    fn run_of(&self, kind: Kind, context: &Context) -> Run {
        Run {
            memory_bytes: self.memory_bytes(),
            ..Run::new(kind, context)
        }
    }

    /// Whether the canister has what it must keep after an installation, once it is paid back what was not
    /// run. Before, it had so many bytes of heap and stable memory.
    fn afford(&self, bytes_before: u64) -> Result<(), Trap> {
        let (run, bytes) = (&self.live.host().run, self.memory_bytes());
        let left = run.fees.instructions(self.live.fuel());
        run.afford(
            bytes.saturating_sub(bytes_before),
            bytes,
            run.balance + left,
        )
    }

    fn begin(&mut self, instructions_max: u64) {
        self.live.begin();
        self.live.set_fuel(instructions_max);
    }

    fn end(&mut self, keep: bool) {
        if keep {
            self.live.commit();
        } else {
            self.live.roll_back();
        }
    }

    fn start(&mut self, context: &Context) -> Result<(), Trap> {
        if !self.module().has_start() {
            return Ok(());
        }
        let run = self.run_of(Kind::START, &fresh(context));
        self.live.host_mut().run = run;
        self.live.call_export(shape::START)
    }

    fn enter_init(&mut self, name: &str, arg: Vec<u8>, context: &Context) -> Result<(), Trap> {
        let logs = std::mem::take(&mut self.live.host_mut().run.logs);
        let run = self.run_of(Kind::INIT, &fresh(context));
        self.live.host_mut().run = Run { arg, logs, ..run };
        self.initialise(name, context)
    }

    fn enter(&mut self, entry: Entry, context: &Context) -> Result<(), Trap> {
        let (kind, export) = kind_and_export(&entry);
        let mut run = self.run_of(kind, context);
        let closure = match entry {
            Entry::Callback {
                closure,
                response,
                cycles_refunded,
            } => {
                run.cycles_refunded = cycles_refunded;
                run.receive(response);
                Some(closure)
            }
            Entry::CompositeCallback { closure, response } => {
                run.receive(response);
                Some(closure)
            }
            Entry::Cleanup {
                closure,
                reject_code,
            }
            | Entry::CompositeCleanup {
                closure,
                reject_code,
            } => {
                run.reject = (reject_code != 0).then(|| (reject_code, String::new()));
                Some(closure)
            }
            Entry::Inspect { .. } if !self.module().exports(&export) => {
                run.accepted = true;
                self.live.host_mut().run = run;
                return Ok(());
            }
            Entry::Inspect { method, arg }
            | Entry::Update { method, arg }
            | Entry::ReplicatedQuery { method, arg }
            | Entry::Query { method, arg }
            | Entry::CompositeQuery { method, arg } => {
                (run.method, run.arg) = (method, arg);
                None
            }
            Entry::Heartbeat | Entry::Timer | Entry::LowWasmMemory => None,
        };
        let method = run.method.clone();
        self.live.host_mut().run = run;
        match closure {
            Some(closure) => self.live.call_closure(closure),
            None if self.module().exports(&export) => self.live.call_export(&export),
            None => Err(Trap::MethodNotFound { method }),
        }
    }

    /// `canister_init` or `canister_post_upgrade`, if there is one, with a heap that may be as large.
    fn initialise(&mut self, name: &str, context: &Context) -> Result<(), Trap> {
        self.call_optional(name)?;
        within(self.live.live_heap_bytes(), context.heap_bytes_max)
    }

    fn call_optional(&mut self, name: &str) -> Result<(), Trap> {
        if self.module().exports(name) {
            self.live.call_export(name)
        } else {
            Ok(())
        }
    }

    fn outcome(&mut self, result: Result<(), Trap>, context: &Context) -> Outcome {
        let dirty = self.live.look();
        // Where state is discarded, nobody looks which pages of the heap are dirty.
        let untracked = Kind::QUERY.or(Kind::REPLICATED_QUERY).or(Kind::INSPECT);
        let heap_pages_dirtied = if self.live.host().run.kind.among(untracked) {
            0
        } else {
            dirty
        };
        // Dirty pages are charged when everything is done: they take what is left, but fail nothing.
        let max = context.instructions_max;
        let instructions = max
            .saturating_sub(self.live.fuel())
            .saturating_add(heap_pages_dirtied * DIRTY_PAGE_COST)
            .min(max);
        let host = self.live.host_mut();
        let mut run = std::mem::replace(&mut host.run, Run::idle());
        // A call that was begun and not performed keeps no cycles.
        run.balance += run.call.take().map_or(0, |call| call.cycles);
        if let Err(Trap::Wasm(text)) = &result {
            run.log(format!("[TRAP]: {text}").into_bytes());
        }
        Outcome {
            usage: Usage {
                instructions,
                heap_pages_dirtied,
                stable_pages_dirtied: host.stable.dirty_pages(),
                stable_pages_accessed: run.stable_access.pages(),
                stable_bytes_read: run.stable_access.bytes_read,
                stable_bytes_written: run.stable_access.bytes_written,
            },
            response: run.response,
            calls: run.calls,
            balance: run.balance,
            cycles_accepted: run.cycles_accepted,
            cycles_burned: run.cycles_burned,
            certified_data: run.certified_data,
            timer_ns: run.timer_ns,
            accepted: run.accepted,
            logs: run.logs,
            result,
        }
    }
}

/// How new code sees the world: its version has begun, and no timer is set.
fn fresh<'a>(context: &Context<'a>) -> Context<'a> {
    Context {
        canister_version: context.canister_version + 1,
        timer_ns: 0,
        ..*context
    }
}

fn kind_and_export(entry: &Entry) -> (Kind, String) {
    let closure = String::new();
    match entry {
        Entry::Inspect { .. } => (Kind::INSPECT, "canister_inspect_message".into()),
        Entry::Update { method, .. } => (Kind::UPDATE, format!("canister_update {method}")),
        Entry::ReplicatedQuery { method, .. } => {
            (Kind::REPLICATED_QUERY, format!("canister_query {method}"))
        }
        Entry::Query { method, .. } => (Kind::QUERY, format!("canister_query {method}")),
        Entry::CompositeQuery { method, .. } => (
            Kind::COMPOSITE_QUERY,
            format!("canister_composite_query {method}"),
        ),
        Entry::Heartbeat => (Kind::HEARTBEAT, "canister_heartbeat".into()),
        Entry::Timer => (Kind::TIMER, "canister_global_timer".into()),
        Entry::LowWasmMemory => (Kind::LOW_WASM_MEMORY, "canister_on_low_wasm_memory".into()),
        Entry::Callback { response, .. } => match response {
            Response::Reply(_) => (Kind::REPLY_CALLBACK, closure),
            Response::Reject { .. } => (Kind::REJECT_CALLBACK, closure),
        },
        Entry::Cleanup { .. } => (Kind::CLEANUP, closure),
        Entry::CompositeCallback { response, .. } => match response {
            Response::Reply(_) => (Kind::COMPOSITE_REPLY, closure),
            Response::Reject { .. } => (Kind::COMPOSITE_REJECT, closure),
        },
        Entry::CompositeCleanup { .. } => (Kind::COMPOSITE_CLEANUP, closure),
    }
}

/// Whether a heap is within the setting `wasm_memory_limit`, where there is one.
pub fn within(bytes: u64, max: u64) -> Result<(), Trap> {
    if max != 0 && bytes > max {
        Err(Trap::WasmMemoryLimit { bytes, max })
    } else {
        Ok(())
    }
}

fn failed(trap: Trap, context: &Context) -> Outcome {
    nothing_done(Err(trap), context)
}

fn nothing_done(result: Result<(), Trap>, context: &Context) -> Outcome {
    Outcome {
        result,
        response: None,
        calls: vec![],
        balance: context.balance,
        cycles_accepted: 0,
        cycles_burned: 0,
        certified_data: None,
        timer_ns: None,
        accepted: false,
        logs: vec![],
        usage: Usage::default(),
    }
}
