//! Runs entry points, all or nothing.

use sha2::{Digest, Sha256};
use wasmtime::{Global, Instance, Ref, Store, Val};

use super::{
    Closure, Context, Entry, Module, Outcome, Response, StableMemory, Trap,
    host::{Host, Kind, Run},
    module,
};

/// A canister's code with its heap, globals and stable memory.
pub struct Machine {
    module: Module,
    store: Store<Host>,
    instance: Instance,
    globals: Vec<Global>,
    /// Heap and mutable globals as they are between executions. The live instance is put back to this
    /// after a trap and after a query.
    image: Image,
}

#[derive(Default)]
struct Image {
    heap: Vec<u8>,
    globals: Vec<Val>,
}

impl Machine {
    /// A new canister: start function, then `canister_init`. No machine where one of them trapped.
    pub fn install(module: &Module, arg: Vec<u8>, context: &Context) -> (Option<Self>, Outcome) {
        let mut machine = match Self::fresh(module, context) {
            Ok(machine) => machine,
            Err(trap) => return (None, failed(trap, context)),
        };
        let outcome = machine.transact(context, |machine| {
            machine.start(context)?;
            machine.enter_init("canister_init", arg, context)
        });
        (outcome.result.is_ok().then_some(machine), outcome)
    }

    /// New code, stable memory kept: `canister_pre_upgrade` of the old code unless it is skipped, start
    /// function and `canister_post_upgrade` of the new. A trap anywhere leaves everything as it was.
    pub fn upgrade(
        &mut self,
        module: &Module,
        arg: Vec<u8>,
        context: &Context,
        skip_pre_upgrade: bool,
    ) -> Outcome {
        let mut before = 0;
        let mut logs = vec![];
        if !skip_pre_upgrade {
            self.store.data_mut().stable.begin();
            self.store.data_mut().run = Run::new(Kind::PRE_UPGRADE, context);
            self.fuel(context.instructions_max);
            let result = self.call_optional("canister_pre_upgrade");
            let outcome = self.outcome(result, context);
            if outcome.result.is_err() {
                self.store.data_mut().stable.roll_back();
                self.restore();
                return outcome;
            }
            before = outcome.instructions;
            logs = outcome.logs;
        }
        let mut new = match Self::fresh(module, context) {
            Ok(new) => new,
            Err(trap) => {
                self.give_up_upgrade();
                return failed(trap, context);
            }
        };
        // What pre_upgrade wrote is still in the undo log: the new machine goes on in that transaction.
        new.store.data_mut().stable = std::mem::take(&mut self.store.data_mut().stable);
        if skip_pre_upgrade {
            new.store.data_mut().stable.begin();
        }
        new.fuel(context.instructions_max - before);
        let result = new
            .start(context)
            .and_then(|()| new.enter_init("canister_post_upgrade", arg, context));
        let mut outcome = new.outcome(result, context);
        logs.append(&mut outcome.logs);
        outcome.logs = logs;
        if outcome.result.is_ok() {
            new.store.data_mut().stable.commit();
            new.keep();
            *self = new;
        } else {
            self.store.data_mut().stable = std::mem::take(&mut new.store.data_mut().stable);
            self.give_up_upgrade();
        }
        outcome
    }

    /// Runs one entry point.
    pub fn run(&mut self, entry: Entry, context: &Context) -> Outcome {
        let discard = matches!(entry, Entry::Query { .. } | Entry::Inspect { .. });
        self.store.data_mut().stable.begin();
        self.fuel(context.instructions_max);
        let result = self.enter(entry, context);
        let outcome = self.outcome(result, context);
        self.finish(outcome.result.is_ok() && !discard);
        outcome
    }

    pub fn module(&self) -> &Module {
        &self.module
    }

    pub fn stable(&self) -> &StableMemory {
        &self.store.data().stable
    }

    pub fn set_stable(&mut self, stable: StableMemory) {
        self.store.data_mut().stable = stable;
    }

    pub fn heap_bytes(&self) -> u64 {
        self.image.heap.len() as u64
    }

    /// SHA-256 of heap, globals and stable memory.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.module.hash());
        hash.update((self.image.heap.len() as u64).to_le_bytes());
        hash.update(&self.image.heap);
        for value in &self.image.globals {
            hash.update(format!("{value:?}"));
        }
        self.stable().digest(&mut hash);
        hash.finalize().into()
    }

    fn fresh(module: &Module, context: &Context) -> Result<Self, Trap> {
        let host = Host {
            stable: StableMemory::default(),
            memory: None,
            run: Run::new(Kind::START, context),
        };
        let mut store = Store::new(module.instance().module().engine(), host);
        store.set_fuel(u64::MAX).expect("the engine counts fuel");
        let instance = module
            .instance()
            .instantiate(&mut store)
            .map_err(|error| Trap::Wasm(format!("cannot be instantiated: {error:#}")))?;
        store.data_mut().memory = instance.get_memory(&mut store, module::MEMORY);
        let globals = module
            .globals()
            .map(|name| {
                instance
                    .get_global(&mut store, &name)
                    .expect("it was exported")
            })
            .collect();
        let mut machine = Self {
            module: module.clone(),
            store,
            instance,
            globals,
            image: Image::default(),
        };
        machine.keep();
        Ok(machine)
    }

    fn transact(
        &mut self,
        context: &Context,
        work: impl FnOnce(&mut Self) -> Result<(), Trap>,
    ) -> Outcome {
        self.store.data_mut().stable.begin();
        self.fuel(context.instructions_max);
        let result = work(self);
        let outcome = self.outcome(result, context);
        self.finish(outcome.result.is_ok());
        outcome
    }

    fn finish(&mut self, keep: bool) {
        if keep {
            self.store.data_mut().stable.commit();
            self.keep();
        } else {
            self.store.data_mut().stable.roll_back();
            self.restore();
        }
    }

    fn start(&mut self, context: &Context) -> Result<(), Trap> {
        if !self.module.has_start() {
            return Ok(());
        }
        self.store.data_mut().run = Run::new(Kind::START, context);
        self.call_export(module::START)
    }

    fn enter_init(&mut self, name: &str, arg: Vec<u8>, context: &Context) -> Result<(), Trap> {
        let logs = std::mem::take(&mut self.store.data_mut().run.logs);
        self.store.data_mut().run = Run {
            arg,
            logs,
            ..Run::new(Kind::INIT, context)
        };
        self.call_optional(name)
    }

    fn enter(&mut self, entry: Entry, context: &Context) -> Result<(), Trap> {
        let (kind, export) = match &entry {
            Entry::Inspect { .. } => (Kind::INSPECT, "canister_inspect_message".into()),
            Entry::Update { method, .. } => (Kind::UPDATE, format!("canister_update {method}")),
            Entry::ReplicatedQuery { method, .. } => {
                (Kind::REPLICATED_QUERY, format!("canister_query {method}"))
            }
            Entry::Query { method, .. } => (Kind::QUERY, format!("canister_query {method}")),
            Entry::Heartbeat => (Kind::SYSTEM_TASK, "canister_heartbeat".into()),
            Entry::Timer => (Kind::SYSTEM_TASK, "canister_global_timer".into()),
            Entry::Callback {
                response: Response::Reply(_),
                ..
            } => (Kind::REPLY_CALLBACK, String::new()),
            Entry::Callback { .. } => (Kind::REJECT_CALLBACK, String::new()),
            Entry::Cleanup { .. } => (Kind::CLEANUP, String::new()),
        };
        let (method, arg) = entry.message();
        let mut run = Run {
            method: method.into(),
            arg: arg.to_vec(),
            ..Run::new(kind, context)
        };
        let closure = match entry {
            Entry::Callback {
                closure,
                response,
                cycles_refunded,
            } => {
                run.cycles_refunded = cycles_refunded;
                match response {
                    Response::Reply(reply) => run.arg = reply,
                    Response::Reject { code, message } => run.reject = Some((code, message)),
                }
                Some(closure)
            }
            Entry::Cleanup { closure } => Some(closure),
            Entry::Inspect { .. } if !self.module.exports(&export) => {
                self.store.data_mut().run = Run {
                    accepted: true,
                    ..run
                };
                return Ok(());
            }
            _ => None,
        };
        let method = run.method.clone();
        self.store.data_mut().run = run;
        match closure {
            Some(closure) => self.call_closure(closure),
            None if self.module.exports(&export) => self.call_export(&export),
            None => Err(Trap::MethodNotFound { method }),
        }
    }

    fn call_optional(&mut self, name: &str) -> Result<(), Trap> {
        if self.module.exports(name) {
            self.call_export(name)
        } else {
            Ok(())
        }
    }

    fn call_export(&mut self, name: &str) -> Result<(), Trap> {
        let function = self
            .instance
            .get_typed_func::<(), ()>(&mut self.store, name)
            .map_err(|error| Trap::Wasm(format!("'{name}' is no entry point: {error}")))?;
        function
            .call(&mut self.store, ())
            .map_err(|error| self.trap(error))
    }

    fn call_closure(&mut self, Closure { fun, env }: Closure) -> Result<(), Trap> {
        let table = self.instance.get_table(&mut self.store, Module::TABLE);
        let element = table.and_then(|table| table.get(&mut self.store, u64::from(fun)));
        let Some(Ref::Func(Some(function))) = element else {
            return Err(Trap::Contract(format!(
                "there is no function {fun} in the table"
            )));
        };
        let function = function.typed::<u32, ()>(&self.store).map_err(|_| {
            Trap::Contract(format!(
                "function {fun} of the table is no callback (i32) -> ()"
            ))
        })?;
        function
            .call(&mut self.store, env)
            .map_err(|error| self.trap(error))
    }

    fn trap(&mut self, error: wasmtime::Error) -> Trap {
        let run = &mut self.store.data_mut().run;
        if let Some(trap) = run.trap.take() {
            return trap;
        }
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::OutOfFuel) => Trap::InstructionLimit {
                max: run.instructions_max,
            },
            Some(trap) => Trap::Wasm(trap.to_string()),
            None => Trap::Wasm(format!("{error:#}")),
        }
    }

    fn fuel(&mut self, instructions: u64) {
        self.store
            .set_fuel(instructions)
            .expect("the engine counts fuel");
    }

    fn outcome(&mut self, result: Result<(), Trap>, context: &Context) -> Outcome {
        let left = self.store.get_fuel().expect("the engine counts fuel");
        let run = std::mem::replace(&mut self.store.data_mut().run, Run::idle());
        Outcome {
            instructions: context.instructions_max.saturating_sub(left),
            response: run.response,
            calls: run.calls,
            balance: run.balance,
            cycles_accepted: run.cycles_accepted,
            certified_data: run.certified_data,
            timer_ns: run.timer_ns,
            accepted: run.accepted,
            logs: run.logs,
            result,
        }
    }

    /// Makes the live heap and globals the committed ones.
    fn keep(&mut self) {
        if let Some(memory) = self.store.data().memory {
            let live = memory.data(&self.store);
            self.image.heap.resize(live.len(), 0);
            self.image.heap.copy_from_slice(live);
        }
        let globals = &self.globals;
        self.image.globals = globals
            .iter()
            .map(|global| global.get(&mut self.store))
            .collect();
    }

    /// Puts heap and globals back to the committed ones.
    fn restore(&mut self) {
        let live = self
            .store
            .data()
            .memory
            .map_or(0, |memory| memory.data_size(&self.store));
        if live != self.image.heap.len() {
            // A memory of Wasm cannot shrink: take a new instance.
            self.renew();
        }
        if let Some(memory) = self.store.data().memory {
            memory
                .data_mut(&mut self.store)
                .copy_from_slice(&self.image.heap);
        }
        for (global, value) in self.globals.iter().zip(&self.image.globals) {
            global
                .set(&mut self.store, *value)
                .expect("the value came from there");
        }
    }

    fn renew(&mut self) {
        let host = self.store.data_mut();
        let stable = std::mem::take(&mut host.stable);
        let run = std::mem::replace(&mut host.run, Run::idle());
        let image = std::mem::take(&mut self.image);
        let mut store = Store::new(
            self.module.instance().module().engine(),
            Host {
                stable,
                memory: None,
                run,
            },
        );
        store.set_fuel(u64::MAX).expect("the engine counts fuel");
        let instance = self
            .module
            .instance()
            .instantiate(&mut store)
            .expect("it could be instantiated before");
        let memory = instance.get_memory(&mut store, module::MEMORY);
        if let Some(memory) = memory {
            let missing = image.heap.len() as u64 / 65_536 - memory.size(&store);
            memory
                .grow(&mut store, missing)
                .expect("the memory had that size before");
        }
        store.data_mut().memory = memory;
        self.globals = self
            .module
            .globals()
            .map(|name| {
                instance
                    .get_global(&mut store, &name)
                    .expect("it was exported")
            })
            .collect();
        (self.store, self.instance, self.image) = (store, instance, image);
    }

    fn give_up_upgrade(&mut self) {
        self.store.data_mut().stable.roll_back();
        self.restore();
    }
}

fn failed(trap: Trap, context: &Context) -> Outcome {
    Outcome {
        result: Err(trap),
        response: None,
        calls: vec![],
        balance: context.balance,
        cycles_accepted: 0,
        certified_data: None,
        timer_ns: None,
        accepted: false,
        logs: vec![],
        instructions: 0,
    }
}
