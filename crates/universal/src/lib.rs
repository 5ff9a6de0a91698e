//! A canister that does what its caller's program says: any sequence of System API calls can be written in
//! a test, calls with callbacks that carry programs themselves included.
//!
//! Its methods `update`, `query` and `composite_query`, `canister_init` and `canister_post_upgrade` run the
//! program in their argument; its other entry points run what an earlier program set for them
//! ([`Program::on_timer`] and its like).
//!
//! ```
//! use openstorage_universal::{Call, Program};
//!
//! // Asks another canister for a number, and answers with it; counts how often it was asked.
//! let callee = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1];
//! let ask = Call::new(callee, "query")
//!     .arg(Program::new().reply(b"42"))
//!     .on_reply(Program::new().arg().append().answer());
//! let program = Program::new().global_append(b"x").call(ask);
//! assert!(!program.bytes().is_empty());
//! ```

mod op;

pub use op::Op;

/// The canister, without a heartbeat.
pub const WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/universal.wasm"));

/// The canister with a heartbeat, which runs what [`Program::on_heartbeat`] set.
pub const WASM_WITH_HEARTBEAT: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/universal_heartbeat.wasm"));

/// What the canister is to do, operation by operation. See [`Op`] for the stack that they work on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program(Vec<u8>);

impl Program {
    pub fn new() -> Self {
        Self::default()
    }

    /// The argument to call the canister with.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// An operation that takes nothing, or takes what is on the stack.
    pub fn op(mut self, op: Op) -> Self {
        self.0.push(op as u8);
        self
    }

    pub fn push(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let len = u32::try_from(bytes.len()).expect("a program is shorter than 4 GiB");
        self.0.push(Op::Push as u8);
        self.0.extend(len.to_le_bytes());
        self.0.extend(bytes);
        self
    }

    pub fn number(self, number: u64) -> Self {
        self.push(number.to_le_bytes())
    }

    pub fn amount(self, cycles: u128) -> Self {
        self.push(cycles.to_le_bytes())
    }

    /// This program, then that one.
    pub fn then(mut self, next: Self) -> Self {
        self.0.extend(next.0);
        self
    }

    pub fn repeat(self, count: u64, program: Self) -> Self {
        self.number(count).push(program.0).op(Op::Repeat)
    }

    /// Appends what is on the stack to the reply.
    pub fn append(self) -> Self {
        self.op(Op::ReplyAppend)
    }

    /// Replies with what was appended.
    pub fn answer(self) -> Self {
        self.op(Op::Reply)
    }

    /// Appends these bytes and replies.
    pub fn reply(self, bytes: impl AsRef<[u8]>) -> Self {
        self.push(bytes).append().answer()
    }

    pub fn reject(self, text: &str) -> Self {
        self.push(text).op(Op::Reject)
    }

    /// Pushes the message's argument.
    pub fn arg(self) -> Self {
        self.op(Op::Arg)
    }

    pub fn trap(self, text: &str) -> Self {
        self.push(text).op(Op::Trap)
    }

    pub fn print(self, text: &str) -> Self {
        self.push(text).op(Op::DebugPrint)
    }

    pub fn global_set(self, bytes: impl AsRef<[u8]>) -> Self {
        self.push(bytes).op(Op::GlobalSet)
    }

    pub fn global_append(self, bytes: impl AsRef<[u8]>) -> Self {
        self.push(bytes).op(Op::GlobalAppend)
    }

    /// Replies with the byte string that stays between messages.
    pub fn reply_global(self) -> Self {
        self.op(Op::GlobalGet).append().answer()
    }

    /// Pages of 64 KiB.
    pub fn stable_grow(self, pages: u64) -> Self {
        self.number(pages).op(Op::StableGrow).op(Op::Drop)
    }

    pub fn stable_write(self, offset: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.number(offset).push(bytes).op(Op::StableWrite)
    }

    /// Pushes bytes of stable memory.
    pub fn stable_read(self, offset: u64, size: u64) -> Self {
        self.number(offset).number(size).op(Op::StableRead)
    }

    /// Pages of 64 KiB.
    pub fn heap_grow(self, pages: u64) -> Self {
        self.number(pages).op(Op::HeapGrow).op(Op::Drop)
    }

    /// Pages of 4 KiB, new ones.
    pub fn heap_touch(self, pages: u64) -> Self {
        self.number(pages).op(Op::HeapTouch)
    }

    /// Goes on until the message has used so many instructions.
    pub fn spin_until(self, instructions: u64) -> Self {
        self.number(instructions).op(Op::SpinUntil)
    }

    pub fn set_timer(self, time_ns: u64) -> Self {
        self.number(time_ns).op(Op::TimerSet).op(Op::Drop)
    }

    pub fn accept_cycles(self, max: u128) -> Self {
        self.amount(max).op(Op::Accept).op(Op::Drop)
    }

    pub fn on_timer(self, program: Self) -> Self {
        self.push(program.0).op(Op::OnTimer)
    }

    pub fn on_heartbeat(self, program: Self) -> Self {
        self.push(program.0).op(Op::OnHeartbeat)
    }

    pub fn on_inspect(self, program: Self) -> Self {
        self.push(program.0).op(Op::OnInspect)
    }

    pub fn on_low_wasm_memory(self, program: Self) -> Self {
        self.push(program.0).op(Op::OnLowWasmMemory)
    }

    pub fn on_pre_upgrade(self, program: Self) -> Self {
        self.push(program.0).op(Op::OnPreUpgrade)
    }

    /// Makes a call; what `call_perform` answers is dropped.
    pub fn call(self, call: Call) -> Self {
        self.call_and_push(call).op(Op::Drop)
    }

    /// Makes a call and pushes what `call_perform` answers: 0, or why it was not made.
    pub fn call_and_push(self, call: Call) -> Self {
        let mut program = self
            .push(call.callee)
            .push(call.method)
            .push(call.on_reply.0)
            .push(call.on_reject.0)
            .op(Op::CallNew);
        if let Some(cleanup) = call.on_cleanup {
            program = program.push(cleanup.0).op(Op::CallOnCleanup);
        }
        if let Some(seconds) = call.timeout_s {
            program = program.number(seconds.into()).op(Op::CallBestEffort);
        }
        if call.cycles > 0 {
            program = program.amount(call.cycles).op(Op::CallCycles);
        }
        program
            .push(call.arg)
            .op(Op::CallDataAppend)
            .op(Op::CallPerform)
    }
}

/// A call to another canister.
#[derive(Debug, Clone)]
pub struct Call {
    callee: Vec<u8>,
    method: String,
    arg: Vec<u8>,
    on_reply: Program,
    on_reject: Program,
    on_cleanup: Option<Program>,
    cycles: u128,
    timeout_s: Option<u32>,
}

impl Call {
    /// With an empty argument, no cycles, an unbounded wait; the reply is answered as it comes, a reject is
    /// answered with its message.
    pub fn new(callee: impl AsRef<[u8]>, method: &str) -> Self {
        Self {
            callee: callee.as_ref().to_vec(),
            method: method.into(),
            arg: vec![],
            on_reply: Program::new().arg().append().answer(),
            on_reject: Program::new().op(Op::RejectMessage).op(Op::Reject),
            on_cleanup: None,
            cycles: 0,
            timeout_s: None,
        }
    }

    /// For another universal canister to run.
    pub fn arg(self, program: Program) -> Self {
        self.payload(program.0)
    }

    pub fn payload(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.arg = arg.as_ref().to_vec();
        self
    }

    pub fn on_reply(mut self, program: Program) -> Self {
        self.on_reply = program;
        self
    }

    pub fn on_reject(mut self, program: Program) -> Self {
        self.on_reject = program;
        self
    }

    pub fn on_cleanup(mut self, program: Program) -> Self {
        self.on_cleanup = Some(program);
        self
    }

    pub fn cycles(mut self, cycles: u128) -> Self {
        self.cycles = cycles;
        self
    }

    /// Waits no longer than so many seconds.
    pub fn timeout_s(mut self, seconds: u32) -> Self {
        self.timeout_s = Some(seconds);
        self
    }
}
