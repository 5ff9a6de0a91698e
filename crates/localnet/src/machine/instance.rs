//! A canister's instance: live Wasm, and heap and globals as they were committed.

use wasmtime::{Global, Instance, Ref, Store, Val};

use super::{
    Closure, Module, StableMemory, Trap,
    heap::{self, Heap, HeapChange, Pages},
    host::{Host, Run},
    shape,
    stable::StableChange,
};

const WASM_PAGE_BYTES: usize = 65_536;

pub struct Live {
    module: Module,
    store: Store<Host>,
    instance: Instance,
    globals: Vec<Global>,
    /// Heap and mutable globals as they are between executions. The live ones are put back to them after
    /// a trap and after a query.
    heap: Heap,
    committed_globals: Vec<Val>,
    /// What the last execution did to the heap.
    pages: Pages,
}

/// What an execution did to a canister, taken out of it.
pub struct Change {
    heap: HeapChange,
    globals: Vec<Val>,
    stable: StableChange,
}

impl Live {
    /// Active segments are applied; neither start function nor entry points have run.
    pub fn new(module: &Module) -> Result<Self, Trap> {
        let host = Host {
            stable: StableMemory::default(),
            memory: None,
            run: Run::idle(),
        };
        let (instantiated, heap) = heap::provide(None, || instantiate(module, host));
        let (store, instance, globals) = instantiated?;
        let mut live = Self {
            module: module.clone(),
            store,
            instance,
            globals,
            heap: heap.unwrap_or(Heap::Copied(vec![])),
            committed_globals: vec![],
            pages: Pages::default(),
        };
        live.look();
        live.keep();
        Ok(live)
    }

    /// A new instance with that heap and these globals. None where they cannot be the module's: it has a larger
    /// heap at once, or never one so large, or other globals.
    pub fn from_image(
        module: &Module,
        heap: &[u8],
        globals: Vec<Val>,
    ) -> Result<Option<Self>, Trap> {
        let mut live = Self::new(module)?;
        let memory = live.store.data().memory;
        let has_room = memory.map_or(heap.is_empty(), |memory| {
            has_room(memory, &live.store, heap.len())
        });
        if heap.len() < live.heap().len() || !has_room || !live.may_have(&globals) {
            return Ok(None);
        }
        live.begin();
        live.overwrite(heap);
        live.set_globals(&globals);
        live.look();
        live.commit();
        Ok(Some(live))
    }

    /// Has the heap of another, as that is now; globals and stable memory stay.
    pub fn inherit(&mut self, other: &Self) -> Result<(), Trap> {
        let (Some(heap), Some(memory)) = (other.memory(), self.store.data().memory) else {
            return Ok(());
        };
        if !has_room(memory, &self.store, heap.len()) {
            return Err(Trap::Wasm("the memory is too small for the heap".into()));
        }
        self.begin();
        self.overwrite(heap);
        self.look();
        self.commit();
        Ok(())
    }

    /// Whether these may be the values of the globals.
    fn may_have(&self, values: &[Val]) -> bool {
        let mut pairs = self.globals.iter().zip(values);
        values.len() == self.globals.len()
            && pairs.all(|(global, value)| {
                let ty = global.ty(&self.store);
                value.matches_ty(&self.store, ty.content()).unwrap_or(false)
            })
    }

    /// Makes the heap these bytes, and zeros where it is larger.
    fn overwrite(&mut self, heap: &[u8]) {
        let Some(memory) = self.store.data().memory else {
            return;
        };
        grow(memory, &mut self.store, heap.len());
        let live = memory.data_mut(&mut self.store);
        let (same, rest) = live.split_at_mut(heap.len());
        same.copy_from_slice(heap);
        rest.fill(0);
    }

    pub fn module(&self) -> &Module {
        &self.module
    }

    pub fn host(&self) -> &Host {
        self.store.data()
    }

    pub fn host_mut(&mut self) -> &mut Host {
        self.store.data_mut()
    }

    /// The committed heap.
    pub fn heap(&self) -> &[u8] {
        self.heap.bytes()
    }

    /// The committed globals.
    pub fn globals(&self) -> &[Val] {
        &self.committed_globals
    }

    pub fn set_fuel(&mut self, instructions: u64) {
        self.store
            .set_fuel(instructions)
            .expect("the engine counts fuel");
    }

    pub fn fuel(&self) -> u64 {
        self.store.get_fuel().expect("the engine counts fuel")
    }

    pub fn call_export(&mut self, name: &str) -> Result<(), Trap> {
        let function = self
            .instance
            .get_typed_func::<(), ()>(&mut self.store, name)
            .map_err(|error| Trap::Wasm(format!("'{name}' is no entry point: {error}")))?;
        function
            .call(&mut self.store, ())
            .map_err(|error| self.trap(error))
    }

    pub fn call_closure(&mut self, Closure { fun, env }: Closure) -> Result<(), Trap> {
        let table = self.instance.get_table(&mut self.store, shape::TABLE);
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

    pub fn live_heap_bytes(&self) -> u64 {
        self.memory().map_or(0, <[u8]>::len) as u64
    }

    /// Finds out what an execution did to the heap, before that is kept or undone. Pages that are not as
    /// they were committed are dirty.
    pub fn look(&mut self) -> u64 {
        self.pages = match self.memory() {
            Some(live) => self.heap.look(live),
            None => Pages::default(),
        };
        self.pages.changed.len() as u64
    }

    pub fn begin(&mut self) {
        self.host_mut().stable.begin();
    }

    /// Makes the live heap, globals and stable memory the committed ones.
    pub fn commit(&mut self) {
        self.host_mut().stable.commit();
        self.keep();
    }

    /// Puts heap, globals and stable memory back to the committed ones.
    pub fn roll_back(&mut self) {
        self.host_mut().stable.roll_back();
        self.restore();
    }

    /// As [`Live::roll_back`], and hands out what is undone.
    pub fn take_back(&mut self) -> Change {
        let heap = match self.memory() {
            Some(live) => HeapChange::take(live, &self.pages),
            None => HeapChange::default(),
        };
        let globals = self.live_globals();
        let stable = self.host_mut().stable.take_back();
        self.restore();
        Change {
            heap,
            globals,
            stable,
        }
    }

    /// Does again what was taken back, in a transaction that has just begun.
    pub fn put_again(&mut self, change: Change) {
        if let Some(memory) = self.store.data().memory {
            grow(memory, &mut self.store, change.heap.size);
            change.heap.put_again(memory.data_mut(&mut self.store));
        }
        self.set_globals(&change.globals);
        self.host_mut().stable.put_again(change.stable);
    }

    fn memory(&self) -> Option<&[u8]> {
        let memory = self.store.data().memory?;
        Some(memory.data(&self.store))
    }

    fn keep(&mut self) {
        if let Some(memory) = self.store.data().memory {
            let live = memory.data_mut(&mut self.store);
            self.heap.keep(live, &self.pages);
        }
        self.committed_globals = self.live_globals();
        self.pages = Pages::default();
        if self.module.wears_out() {
            self.renew();
        }
    }

    fn restore(&mut self) {
        // A memory of Wasm cannot shrink, a dropped segment cannot come back: take a new instance.
        let grown = self.live_heap_bytes() != self.heap.bytes().len() as u64;
        if grown || self.module.wears_out() {
            return self.renew();
        }
        if let Some(memory) = self.store.data().memory {
            let live = memory.data_mut(&mut self.store);
            self.heap.restore(live, &self.pages);
        }
        self.pages = Pages::default();
        let committed = std::mem::take(&mut self.committed_globals);
        self.set_globals(&committed);
        self.committed_globals = committed;
    }

    /// A new instance with the committed heap and globals. Its tables are those of the module: as on the
    /// Internet Computer, what a message does to a table ends with the message.
    fn renew(&mut self) {
        let host = std::mem::replace(self.store.data_mut(), Host::idle());
        let host = Host {
            memory: None,
            run: Run::idle(),
            ..host
        };
        let (instantiated, heap) =
            heap::provide(Some(&self.heap), || instantiate(&self.module, host));
        let (mut store, instance, globals) = instantiated.expect("it could be instantiated before");
        if let Some(heap) = heap {
            self.heap = heap;
        }
        if let Some(memory) = store.data().memory {
            grow(memory, &mut store, self.heap.bytes().len());
        }
        (self.store, self.instance, self.globals) = (store, instance, globals);
        // Instantiating has written the module's segments over the heap.
        self.look();
        if let Some(memory) = self.store.data().memory {
            let live = memory.data_mut(&mut self.store);
            self.heap.restore(live, &self.pages);
        }
        self.pages = Pages::default();
        let committed = std::mem::take(&mut self.committed_globals);
        self.set_globals(&committed);
        self.committed_globals = committed;
    }

    fn live_globals(&mut self) -> Vec<Val> {
        let store = &mut self.store;
        self.globals
            .iter()
            .map(|global| global.get(&mut *store))
            .collect()
    }

    fn set_globals(&mut self, values: &[Val]) {
        for (global, value) in self.globals.iter().zip(values) {
            global
                .set(&mut self.store, *value)
                .expect("the value came from there");
        }
    }

    fn trap(&mut self, error: wasmtime::Error) -> Trap {
        let run = &mut self.store.data_mut().run;
        if let Some(trap) = run.trap.take() {
            return trap;
        }
        let name = match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::OutOfFuel) => {
                return Trap::InstructionLimit {
                    max: run.instructions_max,
                };
            }
            // As the Internet Computer names them.
            Some(wasmtime::Trap::UnreachableCodeReached) => "unreachable".into(),
            Some(wasmtime::Trap::MemoryOutOfBounds) => "heap out of bounds".into(),
            Some(wasmtime::Trap::TableOutOfBounds) => "table out of bounds".into(),
            Some(wasmtime::Trap::IntegerDivisionByZero) => "integer division by 0".into(),
            Some(wasmtime::Trap::StackOverflow) => "stack overflow".into(),
            Some(trap) => trap.to_string(),
            None => format!("{error:#}"),
        };
        Trap::Wasm(name)
    }
}

fn instantiate(module: &Module, host: Host) -> Result<(Store<Host>, Instance, Vec<Global>), Trap> {
    let mut store = Store::new(module.instance().module().engine(), host);
    store.limiter(|host| host);
    store.set_fuel(u64::MAX).expect("the engine counts fuel");
    let instance = module
        .instance()
        .instantiate(&mut store)
        .map_err(|error| Trap::Wasm(format!("cannot be instantiated: {error:#}")))?;
    store.data_mut().memory = instance.get_memory(&mut store, shape::MEMORY);
    let globals = module
        .globals()
        .map(|name| {
            instance
                .get_global(&mut store, &name)
                .expect("it was exported")
        })
        .collect();
    Ok((store, instance, globals))
}

/// Whether a memory may ever have so many bytes.
fn has_room(memory: wasmtime::Memory, store: &Store<Host>, bytes: usize) -> bool {
    let max = memory.ty(store).maximum();
    max.is_none_or(|max| bytes.div_ceil(WASM_PAGE_BYTES) as u64 <= max)
}

/// Grows a memory to a size that it may have.
fn grow(memory: wasmtime::Memory, store: &mut Store<Host>, bytes: usize) {
    let missing = bytes.saturating_sub(memory.data_size(&*store)) / WASM_PAGE_BYTES;
    if missing > 0 {
        memory
            .grow(store, missing as u64)
            .expect("the memory may have that size");
    }
}
