//! The operations of a program: a byte each; [`Op::Push`] is followed by a length (4 bytes, little-endian)
//! and so many bytes.
//!
//! Operations work on a stack of byte strings. Numbers are strings of 8 bytes, amounts of cycles of 16, both
//! little-endian. What is written `a b → c` takes `a` and `b` (on top) and leaves `c`.

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Op { $($(#[$doc])* $name),* }

        impl Op {
            const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

ops! {
    /// → bytes
    Push,
    /// a b → ab
    Concat,
    /// a →
    Drop,
    /// program → what it leaves
    Run,
    /// count program → what it leaves, run so often
    Repeat,

    // The message and its answer.
    Arg, Caller, CallerInfoData, CallerInfoSigner, RejectCode, RejectMessage, Deadline, MethodName,
    AcceptMessage,
    /// bytes →
    ReplyAppend,
    Reply,
    /// text →
    Reject,

    // The canister and its world.
    SelfId, SubnetId, NodeCount, RootKey, CertificatePresent, Certificate, Time, Status, Version,
    Replicated,
    /// bytes →
    CertifiedDataSet,
    /// time → time before
    TimerSet,
    /// counter → instructions
    PerformanceCounter,
    /// principal → 0 or 1
    IsController,
    EnvironmentCount,
    /// index → name
    EnvironmentName,
    /// name → 0 or 1
    EnvironmentExists,
    /// name → value
    EnvironmentValue,

    // Cycles.
    Balance, Liquid, Available, Refunded,
    /// amount → accepted
    Accept,
    /// amount → burned
    Burn,
    Balance64, Available64, Refunded64,
    /// number → number
    Accept64,
    /// name-size payload-size → amount
    CostCall,
    CostCreate,
    /// request-size response-size → amount
    CostHttp,
    /// record → amount
    CostHttpV2,
    /// key curve → code amount
    CostEcdsa, CostSchnorr, CostVetkd,

    // Calls.
    /// callee method program program →: on reply, on reject
    CallNew,
    /// program →
    CallOnCleanup,
    /// bytes →
    CallDataAppend,
    /// seconds →
    CallBestEffort,
    /// amount →
    CallCycles,
    /// number →
    CallCycles64,
    /// → 0 or an error
    CallPerform,

    // Memory.
    StableSize,
    /// pages → pages before
    StableGrow,
    /// offset bytes →
    StableWrite,
    /// offset length → bytes
    StableRead,
    StableSize32, StableGrow32, StableWrite32, StableRead32,
    HeapSize,
    /// pages → pages before
    HeapGrow,
    /// pages of 4 KiB →: writes to so many new ones
    HeapTouch,
    /// → a byte string that stays between messages
    GlobalGet,
    /// bytes →
    GlobalSet,
    /// bytes →
    GlobalAppend,

    // What to run later: program →
    OnTimer, OnHeartbeat, OnInspect, OnLowWasmMemory, OnPreUpgrade,

    // Ends.
    /// text →
    DebugPrint,
    /// text →
    Trap,
    Unreachable,
    /// instructions →: goes on until the message has used so many
    SpinUntil,
    /// →: never ends
    SpinForever,
}

impl Op {
    pub fn decode(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}
