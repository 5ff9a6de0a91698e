//! The canister: runs programs. Compiled to Wasm by the build script.

mod op;

use std::cell::RefCell;

use op::Op;

#[link(wasm_import_module = "ic0")]
unsafe extern "C" {
    fn msg_arg_data_size() -> usize;
    fn msg_arg_data_copy(dst: usize, offset: usize, size: usize);
    fn msg_caller_size() -> usize;
    fn msg_caller_copy(dst: usize, offset: usize, size: usize);
    fn msg_caller_info_data_size() -> usize;
    fn msg_caller_info_data_copy(dst: usize, offset: usize, size: usize);
    fn msg_caller_info_signer_size() -> usize;
    fn msg_caller_info_signer_copy(dst: usize, offset: usize, size: usize);
    fn msg_reject_code() -> u32;
    fn msg_reject_msg_size() -> usize;
    fn msg_reject_msg_copy(dst: usize, offset: usize, size: usize);
    fn msg_deadline() -> u64;
    fn msg_method_name_size() -> usize;
    fn msg_method_name_copy(dst: usize, offset: usize, size: usize);
    fn accept_message();
    fn msg_reply_data_append(src: usize, size: usize);
    fn msg_reply();
    fn msg_reject(src: usize, size: usize);
    fn canister_self_size() -> usize;
    fn canister_self_copy(dst: usize, offset: usize, size: usize);
    fn subnet_self_size() -> usize;
    fn subnet_self_copy(dst: usize, offset: usize, size: usize);
    fn subnet_self_node_count() -> u32;
    fn root_key_size() -> usize;
    fn root_key_copy(dst: usize, offset: usize, size: usize);
    fn data_certificate_present() -> u32;
    fn data_certificate_size() -> usize;
    fn data_certificate_copy(dst: usize, offset: usize, size: usize);
    fn time() -> u64;
    fn canister_status() -> u32;
    fn canister_version() -> u64;
    fn in_replicated_execution() -> u32;
    fn certified_data_set(src: usize, size: usize);
    fn global_timer_set(time: u64) -> u64;
    fn performance_counter(counter: u32) -> u64;
    fn is_controller(src: usize, size: usize) -> u32;
    fn env_var_count() -> usize;
    fn env_var_name_size(index: usize) -> usize;
    fn env_var_name_copy(index: usize, dst: usize, offset: usize, size: usize);
    fn env_var_name_exists(src: usize, size: usize) -> u32;
    fn env_var_value_size(src: usize, size: usize) -> usize;
    fn env_var_value_copy(src: usize, name: usize, dst: usize, offset: usize, size: usize);
    fn canister_cycle_balance128(dst: usize);
    fn canister_liquid_cycle_balance128(dst: usize);
    fn msg_cycles_available128(dst: usize);
    fn msg_cycles_refunded128(dst: usize);
    fn msg_cycles_accept128(high: u64, low: u64, dst: usize);
    fn cycles_burn128(high: u64, low: u64, dst: usize);
    fn canister_cycle_balance() -> u64;
    fn msg_cycles_available() -> u64;
    fn msg_cycles_refunded() -> u64;
    fn msg_cycles_accept(max: u64) -> u64;
    fn cost_call(name: u64, payload: u64, dst: usize);
    fn cost_create_canister(dst: usize);
    fn cost_http_request(request: u64, response: u64, dst: usize);
    fn cost_http_request_v2(src: usize, size: usize, dst: usize);
    fn cost_sign_with_ecdsa(src: usize, size: usize, curve: u32, dst: usize) -> u32;
    fn cost_sign_with_schnorr(src: usize, size: usize, algorithm: u32, dst: usize) -> u32;
    fn cost_vetkd_derive_key(src: usize, size: usize, curve: u32, dst: usize) -> u32;
    fn call_new(
        callee: usize,
        callee_size: usize,
        name: usize,
        name_size: usize,
        reply_fun: usize,
        reply_env: usize,
        reject_fun: usize,
        reject_env: usize,
    );
    fn call_on_cleanup(fun: usize, env: usize);
    fn call_data_append(src: usize, size: usize);
    fn call_with_best_effort_response(seconds: u32);
    fn call_cycles_add128(high: u64, low: u64);
    fn call_cycles_add(amount: u64);
    fn call_perform() -> u32;
    fn stable64_size() -> u64;
    fn stable64_grow(pages: u64) -> u64;
    fn stable64_write(offset: u64, src: u64, size: u64);
    fn stable64_read(dst: u64, offset: u64, size: u64);
    fn stable_size() -> u32;
    fn stable_grow(pages: u32) -> u32;
    fn stable_write(offset: u32, src: usize, size: usize);
    fn stable_read(dst: usize, offset: u32, size: usize);
    fn debug_print(src: usize, size: usize);
    fn trap(src: usize, size: usize);
}

/// What stays between messages.
#[derive(Default)]
struct State {
    global: Vec<u8>,
    /// By the environment that a callback gets.
    callbacks: Vec<Vec<u8>>,
    timer: Vec<u8>,
    heartbeat: Vec<u8>,
    inspect: Option<Vec<u8>>,
    low_wasm_memory: Vec<u8>,
    pre_upgrade: Vec<u8>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

fn with<T>(work: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(work)
}

extern "C" fn callback(env: usize) {
    run(&with(|state| state.callbacks[env].clone()));
}

fn register(program: Vec<u8>) -> usize {
    with(|state| {
        state.callbacks.push(program);
        state.callbacks.len() - 1
    })
}

fn run(program: &[u8]) {
    run_on(&mut Stack::default(), program);
}

fn run_on(stack: &mut Stack, mut program: &[u8]) {
    while let Some((byte, rest)) = program.split_first() {
        program = rest;
        let op = Op::decode(*byte).expect("an operation");
        if op == Op::Push {
            let (len, rest) = program.split_at(4);
            let len = u32::from_le_bytes(len.try_into().unwrap()) as usize;
            let (bytes, rest) = rest.split_at(len);
            stack.0.push(bytes.to_vec());
            program = rest;
        } else {
            step(stack, op);
        }
    }
}

#[derive(Default)]
struct Stack(Vec<Vec<u8>>);

impl Stack {
    fn bytes(&mut self) -> Vec<u8> {
        self.0.pop().expect("a value")
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes().try_into().expect("a number"))
    }

    /// High and low half of an amount.
    fn amount(&mut self) -> (u64, u64) {
        let amount = u128::from_le_bytes(self.bytes().try_into().expect("an amount"));
        ((amount >> 64) as u64, amount as u64)
    }

    fn push(&mut self, number: u64) {
        self.0.push(number.to_le_bytes().to_vec());
    }

    fn push_amount(&mut self, write: impl FnOnce(usize)) {
        let mut amount = [0; 16];
        write(amount.as_mut_ptr() as usize);
        self.0.push(amount.to_vec());
    }

    fn push_blob(&mut self, size: usize, copy: impl FnOnce(usize, usize, usize)) {
        let mut blob = vec![0; size];
        copy(blob.as_mut_ptr() as usize, 0, size);
        self.0.push(blob);
    }

    fn push_cost(&mut self, cost: impl FnOnce(usize, usize, u32, usize) -> u32) {
        let curve = self.number() as u32;
        let key = self.bytes();
        let mut amount = [0; 16];
        let code = cost(at(&key), key.len(), curve, amount.as_mut_ptr() as usize);
        self.push(code.into());
        self.0.push(amount.to_vec());
    }
}

fn at(bytes: &[u8]) -> usize {
    bytes.as_ptr() as usize
}

macro_rules! blob {
    ($stack:ident, $size:ident, $copy:ident) => {
        $stack.push_blob($size(), |dst, offset, size| $copy(dst, offset, size))
    };
}

// One arm for each operation: to split the list would hide it.
#[allow(clippy::too_many_lines)]
fn step(stack: &mut Stack, op: Op) {
    // SAFETY: every pointer handed out is to a live buffer of the size that goes with it.
    unsafe {
        match op {
            Op::Push => unreachable!("it has an operand"),
            Op::Concat => {
                let tail = stack.bytes();
                let mut head = stack.bytes();
                head.extend(tail);
                stack.0.push(head);
            }
            Op::Drop => drop(stack.bytes()),
            Op::Run => {
                let program = stack.bytes();
                run_on(stack, &program);
            }
            Op::Repeat => {
                let program = stack.bytes();
                for _ in 0..stack.number() {
                    run_on(stack, &program);
                }
            }

            Op::Arg => blob!(stack, msg_arg_data_size, msg_arg_data_copy),
            Op::Caller => blob!(stack, msg_caller_size, msg_caller_copy),
            Op::CallerInfoData => {
                blob!(stack, msg_caller_info_data_size, msg_caller_info_data_copy)
            }
            Op::CallerInfoSigner => {
                blob!(
                    stack,
                    msg_caller_info_signer_size,
                    msg_caller_info_signer_copy
                )
            }
            Op::RejectCode => stack.push(msg_reject_code().into()),
            Op::RejectMessage => blob!(stack, msg_reject_msg_size, msg_reject_msg_copy),
            Op::Deadline => stack.push(msg_deadline()),
            Op::MethodName => blob!(stack, msg_method_name_size, msg_method_name_copy),
            Op::AcceptMessage => accept_message(),
            Op::ReplyAppend => {
                let bytes = stack.bytes();
                msg_reply_data_append(at(&bytes), bytes.len());
            }
            Op::Reply => msg_reply(),
            Op::Reject => {
                let text = stack.bytes();
                msg_reject(at(&text), text.len());
            }

            Op::SelfId => blob!(stack, canister_self_size, canister_self_copy),
            Op::SubnetId => blob!(stack, subnet_self_size, subnet_self_copy),
            Op::NodeCount => stack.push(subnet_self_node_count().into()),
            Op::RootKey => blob!(stack, root_key_size, root_key_copy),
            Op::CertificatePresent => stack.push(data_certificate_present().into()),
            Op::Certificate => blob!(stack, data_certificate_size, data_certificate_copy),
            Op::Time => stack.push(time()),
            Op::Status => stack.push(canister_status().into()),
            Op::Version => stack.push(canister_version()),
            Op::Replicated => stack.push(in_replicated_execution().into()),
            Op::CertifiedDataSet => {
                let bytes = stack.bytes();
                certified_data_set(at(&bytes), bytes.len());
            }
            Op::TimerSet => {
                let time = stack.number();
                stack.push(global_timer_set(time));
            }
            Op::PerformanceCounter => {
                let counter = stack.number() as u32;
                stack.push(performance_counter(counter));
            }
            Op::IsController => {
                let principal = stack.bytes();
                stack.push(is_controller(at(&principal), principal.len()).into());
            }
            Op::EnvironmentCount => stack.push(env_var_count() as u64),
            Op::EnvironmentName => {
                let index = stack.number() as usize;
                stack.push_blob(env_var_name_size(index), |dst, offset, size| {
                    env_var_name_copy(index, dst, offset, size)
                });
            }
            Op::EnvironmentExists => {
                let name = stack.bytes();
                stack.push(env_var_name_exists(at(&name), name.len()).into());
            }
            Op::EnvironmentValue => {
                let name = stack.bytes();
                let size = env_var_value_size(at(&name), name.len());
                stack.push_blob(size, |dst, offset, size| {
                    env_var_value_copy(at(&name), name.len(), dst, offset, size)
                });
            }

            Op::Balance => stack.push_amount(|dst| canister_cycle_balance128(dst)),
            Op::Liquid => stack.push_amount(|dst| canister_liquid_cycle_balance128(dst)),
            Op::Available => stack.push_amount(|dst| msg_cycles_available128(dst)),
            Op::Refunded => stack.push_amount(|dst| msg_cycles_refunded128(dst)),
            Op::Accept => {
                let (high, low) = stack.amount();
                stack.push_amount(|dst| msg_cycles_accept128(high, low, dst));
            }
            Op::Burn => {
                let (high, low) = stack.amount();
                stack.push_amount(|dst| cycles_burn128(high, low, dst));
            }
            Op::Balance64 => stack.push(canister_cycle_balance()),
            Op::Available64 => stack.push(msg_cycles_available()),
            Op::Refunded64 => stack.push(msg_cycles_refunded()),
            Op::Accept64 => {
                let max = stack.number();
                stack.push(msg_cycles_accept(max));
            }
            Op::CostCall => {
                let payload = stack.number();
                let name = stack.number();
                stack.push_amount(|dst| cost_call(name, payload, dst));
            }
            Op::CostCreate => stack.push_amount(|dst| cost_create_canister(dst)),
            Op::CostHttp => {
                let response = stack.number();
                let request = stack.number();
                stack.push_amount(|dst| cost_http_request(request, response, dst));
            }
            Op::CostHttpV2 => {
                let record = stack.bytes();
                stack.push_amount(|dst| cost_http_request_v2(at(&record), record.len(), dst));
            }
            Op::CostEcdsa => {
                stack.push_cost(|src, size, curve, dst| cost_sign_with_ecdsa(src, size, curve, dst))
            }
            Op::CostSchnorr => stack
                .push_cost(|src, size, curve, dst| cost_sign_with_schnorr(src, size, curve, dst)),
            Op::CostVetkd => stack
                .push_cost(|src, size, curve, dst| cost_vetkd_derive_key(src, size, curve, dst)),

            Op::CallNew => {
                let on_reject = register(stack.bytes());
                let on_reply = register(stack.bytes());
                let method = stack.bytes();
                let callee = stack.bytes();
                let fun = callback as extern "C" fn(usize) as usize;
                call_new(
                    at(&callee),
                    callee.len(),
                    at(&method),
                    method.len(),
                    fun,
                    on_reply,
                    fun,
                    on_reject,
                );
            }
            Op::CallOnCleanup => {
                let program = register(stack.bytes());
                call_on_cleanup(callback as extern "C" fn(usize) as usize, program);
            }
            Op::CallDataAppend => {
                let bytes = stack.bytes();
                call_data_append(at(&bytes), bytes.len());
            }
            Op::CallBestEffort => call_with_best_effort_response(stack.number() as u32),
            Op::CallCycles => {
                let (high, low) = stack.amount();
                call_cycles_add128(high, low);
            }
            Op::CallCycles64 => call_cycles_add(stack.number()),
            Op::CallPerform => stack.push(call_perform().into()),

            Op::StableSize => stack.push(stable64_size()),
            Op::StableGrow => {
                let pages = stack.number();
                stack.push(stable64_grow(pages));
            }
            Op::StableWrite => {
                let bytes = stack.bytes();
                stable64_write(stack.number(), at(&bytes) as u64, bytes.len() as u64);
            }
            Op::StableRead => {
                let size = stack.number();
                let from = stack.number();
                stack.push_blob(size as usize, |dst, _, size| {
                    stable64_read(dst as u64, from, size as u64)
                });
            }
            Op::StableSize32 => stack.push(stable_size().into()),
            Op::StableGrow32 => {
                let pages = stack.number() as u32;
                stack.push(stable_grow(pages).into());
            }
            Op::StableWrite32 => {
                let bytes = stack.bytes();
                stable_write(stack.number() as u32, at(&bytes), bytes.len());
            }
            Op::StableRead32 => {
                let size = stack.number();
                let from = stack.number() as u32;
                stack.push_blob(size as usize, |dst, _, size| stable_read(dst, from, size));
            }
            Op::HeapSize => stack.push(core::arch::wasm32::memory_size(0) as u64),
            Op::HeapGrow => {
                let pages = stack.number() as usize;
                stack.push(core::arch::wasm32::memory_grow(0, pages) as u32 as u64);
            }
            Op::HeapTouch => {
                let pages = stack.number() as usize;
                vec![1u8; pages * 4_096].leak();
            }
            Op::GlobalGet => stack.0.push(with(|state| state.global.clone())),
            Op::GlobalSet => {
                let bytes = stack.bytes();
                with(|state| state.global = bytes);
            }
            Op::GlobalAppend => {
                let bytes = stack.bytes();
                with(|state| state.global.extend(bytes));
            }

            Op::OnTimer => {
                let program = stack.bytes();
                with(|state| state.timer = program);
            }
            Op::OnHeartbeat => {
                let program = stack.bytes();
                with(|state| state.heartbeat = program);
            }
            Op::OnInspect => {
                let program = stack.bytes();
                with(|state| state.inspect = Some(program));
            }
            Op::OnLowWasmMemory => {
                let program = stack.bytes();
                with(|state| state.low_wasm_memory = program);
            }
            Op::OnPreUpgrade => {
                let program = stack.bytes();
                with(|state| state.pre_upgrade = program);
            }

            Op::DebugPrint => {
                let text = stack.bytes();
                debug_print(at(&text), text.len());
            }
            Op::Trap => {
                let text = stack.bytes();
                trap(at(&text), text.len());
            }
            Op::Unreachable => core::arch::wasm32::unreachable(),
            Op::SpinUntil => {
                let instructions = stack.number();
                while performance_counter(0) < instructions {}
            }
            Op::SpinForever => loop {
                std::hint::black_box(0);
            },
        }
    }
}

fn run_arg() {
    let mut stack = Stack::default();
    step(&mut stack, Op::Arg);
    let program = stack.bytes();
    run_on(&mut stack, &program);
}

#[unsafe(export_name = "canister_init")]
extern "C" fn init() {
    run_arg();
}

#[unsafe(export_name = "canister_post_upgrade")]
extern "C" fn post_upgrade() {
    run_arg();
}

#[unsafe(export_name = "canister_pre_upgrade")]
extern "C" fn pre_upgrade() {
    run(&with(|state| state.pre_upgrade.clone()));
}

#[unsafe(export_name = "canister_inspect_message")]
extern "C" fn inspect() {
    match with(|state| state.inspect.clone()) {
        Some(program) => run(&program),
        // SAFETY: it takes nothing.
        None => unsafe { accept_message() },
    }
}

#[cfg(heartbeat)]
#[unsafe(export_name = "canister_heartbeat")]
extern "C" fn heartbeat() {
    run(&with(|state| state.heartbeat.clone()));
}

#[unsafe(export_name = "canister_global_timer")]
extern "C" fn timer() {
    run(&with(|state| state.timer.clone()));
}

#[unsafe(export_name = "canister_on_low_wasm_memory")]
extern "C" fn low_wasm_memory() {
    run(&with(|state| state.low_wasm_memory.clone()));
}

#[unsafe(export_name = "canister_update update")]
extern "C" fn update() {
    run_arg();
}

#[unsafe(export_name = "canister_query query")]
extern "C" fn query() {
    run_arg();
}

#[unsafe(export_name = "canister_composite_query composite_query")]
extern "C" fn composite_query() {
    run_arg();
}
