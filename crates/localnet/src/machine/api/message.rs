//! The message that is being executed, and the answer to it.

use wasmtime::{Caller, Linker, Result};

use super::{
    BASE_COST, CALLBACK, COMPOSITE_CALLBACK, EVERYWHERE, Ic0, MESSAGE, PAYLOAD_BYTE_COST,
    define_bytes,
};
use crate::machine::{
    Response,
    host::{Host, Kind},
};

const ARG: Kind = Kind::INIT
    .or(Kind::UPDATE)
    .or(Kind::REPLICATED_QUERY)
    .or(Kind::QUERY)
    .or(Kind::COMPOSITE_QUERY)
    .or(Kind::REPLY_CALLBACK)
    .or(Kind::COMPOSITE_REPLY)
    .or(Kind::INSPECT);
/// Updates and their callbacks.
const DEADLINES: Kind = Kind::UPDATE.or(CALLBACK);
const REJECTED: Kind = Kind::REJECT_CALLBACK.or(Kind::COMPOSITE_REJECT);
const INFORMED: Kind = MESSAGE
    .or(Kind::CLEANUP)
    .or(Kind::COMPOSITE_CLEANUP)
    .or(Kind::INSPECT);
/// Bytes of a reply that goes through blocks.
const REPLY_BYTES_MAX: usize = 2 << 20;
/// Bytes of a query's reply.
const QUERY_REPLY_BYTES_MAX: usize = 3 << 20;
const NOT_THROUGH_BLOCKS: Kind = Kind::QUERY.or(Kind::COMPOSITE_QUERY).or(COMPOSITE_CALLBACK);

pub fn define(linker: &mut Linker<Host>) -> Result<()> {
    define_bytes(linker, "msg_caller", EVERYWHERE, |run| {
        run.caller.as_slice().to_vec()
    })?;
    define_bytes(linker, "msg_method_name", Kind::INSPECT, |run| {
        run.method.as_bytes().to_vec()
    })?;
    define_bytes(linker, "msg_reject_msg", REJECTED, |run| {
        run.reject
            .as_ref()
            .map(|(_, message)| message.as_bytes().to_vec())
            .unwrap_or_default()
    })?;
    define_bytes(linker, "msg_caller_info_data", INFORMED, |run| {
        let said = run.sender_info.as_ref();
        said.map(|said| said.info.clone()).unwrap_or_default()
    })?;
    define_bytes(linker, "msg_caller_info_signer", INFORMED, |run| {
        let said = run.sender_info.as_ref();
        said.map(|said| said.signer.as_slice().to_vec())
            .unwrap_or_default()
    })?;
    define_arg(linker)?;
    define_answer(linker)?;

    linker.func_wrap("ic0", "msg_reject_code", |mut c: Caller<Host>| {
        c.enter(
            "msg_reject_code",
            CALLBACK.or(COMPOSITE_CALLBACK).or(Kind::CLEANUP),
            BASE_COST,
        )?;
        Ok(c.run().reject.as_ref().map_or(0, |(code, _)| *code))
    })?;
    linker.func_wrap("ic0", "msg_deadline", |mut c: Caller<Host>| {
        c.enter("msg_deadline", MESSAGE, BASE_COST)?;
        let run = c.run();
        // Queries have none, even where the call that they answer has.
        Ok(if run.kind.among(DEADLINES) {
            run.deadline_ns
        } else {
            0
        })
    })?;
    linker.func_wrap("ic0", "accept_message", |mut c: Caller<Host>| {
        c.enter("accept_message", Kind::INSPECT, BASE_COST)?;
        if std::mem::replace(&mut c.run().accepted, true) {
            return c.contract("ic0_accept_message: the message is accepted already");
        }
        Ok(())
    })?;
    Ok(())
}

/// As [`define_bytes`], without copying two megabytes for each look at them.
fn define_arg(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("ic0", "msg_arg_data_size", |mut c: Caller<Host>| {
        c.enter("msg_arg_data_size", ARG, BASE_COST)?;
        Ok(c.run().arg.len() as u32)
    })?;
    linker.func_wrap(
        "ic0",
        "msg_arg_data_copy",
        |mut c: Caller<Host>, dst: u32, offset: u32, size: u32| {
            c.enter("msg_arg_data_copy", ARG, BASE_COST + u64::from(size))?;
            let arg = std::mem::take(&mut c.run().arg);
            let result = c.copy_out(&arg, dst, offset, size);
            c.run().arg = arg;
            result
        },
    )?;
    Ok(())
}

fn define_answer(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        "ic0",
        "msg_reply_data_append",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter(
                "msg_reply_data_append",
                MESSAGE,
                BASE_COST + PAYLOAD_BYTE_COST * u64::from(size),
            )?;
            not_answered(&mut c, "msg_reply_data_append")?;
            let (max, so_far) = (reply_bytes_max(&mut c), c.run().reply.len());
            if so_far + size as usize > max {
                return c.contract(format!(
                    "ic0_msg_reply_data_append: a reply has at most {max} bytes"
                ));
            }
            let bytes = c.load(src, size)?;
            c.run().reply.extend_from_slice(&bytes);
            Ok(())
        },
    )?;
    linker.func_wrap("ic0", "msg_reply", |mut c: Caller<Host>| {
        c.enter("msg_reply", MESSAGE, BASE_COST)?;
        not_answered(&mut c, "msg_reply")?;
        let reply = std::mem::take(&mut c.run().reply);
        answer(&mut c, Response::Reply(reply));
        Ok(())
    })?;
    linker.func_wrap(
        "ic0",
        "msg_reject",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter(
                "msg_reject",
                MESSAGE,
                BASE_COST + PAYLOAD_BYTE_COST * u64::from(size),
            )?;
            not_answered(&mut c, "msg_reject")?;
            let max = reply_bytes_max(&mut c);
            if size as usize > max {
                return c.contract(format!("ic0_msg_reject: a text has at most {max} bytes"));
            }
            let bytes = c.load(src, size)?;
            let Ok(message) = String::from_utf8(bytes) else {
                return c.contract("ic0_msg_reject: the message is not UTF-8");
            };
            const CANISTER_REJECT: u32 = 4;
            answer(
                &mut c,
                Response::Reject {
                    code: CANISTER_REJECT,
                    message,
                },
            );
            Ok(())
        },
    )?;
    Ok(())
}

fn reply_bytes_max(c: &mut Caller<Host>) -> usize {
    if c.run().kind.among(NOT_THROUGH_BLOCKS) {
        QUERY_REPLY_BYTES_MAX
    } else {
        REPLY_BYTES_MAX
    }
}

/// Cycles that were not accepted by now go back with the answer.
fn answer(c: &mut Caller<Host>, response: Response) {
    let run = c.run();
    run.response = Some(response);
    run.answered = true;
    run.cycles_available = 0;
}

fn not_answered(c: &mut Caller<Host>, name: &str) -> Result<()> {
    if c.run().answered {
        c.contract(format!("ic0_{name}: the call is already replied to"))
    } else {
        Ok(())
    }
}
