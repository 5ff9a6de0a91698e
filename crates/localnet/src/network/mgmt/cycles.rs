//! The canisters that command lines ask for a subnet and for cycles before they create a canister. The network
//! plays them where it is told to ([`Config::plays_cycles`](crate::network::Config)): they have no code and keep no
//! accounts. Whoever asks for cycles gets new ones, and cycles that are brought are burned.

use candid::{CandidType, Nat, Principal};
use ic_management_canister_types::CanisterSettings;
use pocket_ic::common::rest::SubnetKind;
use serde::Deserialize;

use super::{Done, Managed, decode, encode, lifecycle::Wanted, reply};
use crate::network::{Network, Reject, call::Request};

/// The cycles minting canister, rkp4c-7iaaa-aaaaa-aaaca-cai.
const MINTING: Principal = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 4, 1, 1]);
/// The cycles ledger, um5iw-rqaaa-aaaaq-qaaba-cai.
const LEDGER: Principal = Principal::from_slice(&[0, 0, 0, 0, 2, 16, 0, 2, 1, 1]);
/// Both of them.
pub const PLAYED: [Principal; 2] = [MINTING, LEDGER];
/// What everybody has, and never less of.
const BALANCE: u128 = 1 << 127;

#[derive(CandidType, Deserialize)]
struct CreateArgs {
    amount: Nat,
    creation_args: Option<CreationArgs>,
}

#[derive(CandidType, Deserialize)]
struct CreationArgs {
    subnet_selection: Option<SubnetSelection>,
    settings: Option<CanisterSettings>,
}

#[derive(CandidType, Deserialize)]
enum SubnetSelection {
    Subnet { subnet: Principal },
    Filter { subnet_type: Option<String> },
}

#[derive(CandidType)]
enum Created {
    Ok {
        block_id: Nat,
        canister_id: Principal,
    },
    Err(NotCreated),
}

#[derive(CandidType)]
enum NotCreated {
    FailedToCreate {
        error: String,
        refund_block: Option<Nat>,
        fee_block: Option<Nat>,
    },
}

#[derive(CandidType, Deserialize)]
struct WithdrawArgs {
    amount: Nat,
    to: Principal,
}

#[derive(CandidType)]
enum NotWithdrawn {
    InvalidReceiver { receiver: Principal },
}

#[derive(CandidType)]
struct Deposited {
    balance: Nat,
    block_index: Nat,
}

impl Network {
    /// Whether the network plays a canister of that id.
    pub(in crate::network) fn plays(&self, id: &Principal) -> bool {
        self.plays_cycles && PLAYED.contains(id)
    }

    /// A call to a canister that the network plays.
    pub(super) fn play(&mut self, request: &Request) -> Managed {
        let Request {
            callee,
            method,
            arg,
            ..
        } = request;
        match (*callee, method.as_str()) {
            (LEDGER, "create_canister") => self.ledger_create(request, decode(method, arg)?),
            (LEDGER, "withdraw") => self.ledger_withdraw(decode(method, arg)?),
            (LEDGER, "deposit") => self.ledger_deposit(request),
            _ => Ok(Done::Reply {
                bytes: self.play_query(callee, method)?,
                cycles_kept: 0,
            }),
        }
    }

    /// A query of such a canister, which may be called as an update, too.
    pub(in crate::network) fn play_query(
        &self,
        id: &Principal,
        method: &str,
    ) -> Result<Vec<u8>, Reject> {
        match (*id, method) {
            (MINTING, "get_default_subnets") => Ok(encode(&self.default_subnets())),
            (LEDGER, "icrc1_balance_of") => Ok(encode(&Nat::from(BALANCE))),
            _ => Err(Reject::no_method(id, "query", method)),
        }
    }

    /// Subnets on which anybody may create canisters.
    fn default_subnets(&self) -> Vec<Principal> {
        let subnets = self.subnets.iter();
        let open: Vec<_> = subnets
            .filter(|subnet| subnet.kind == SubnetKind::Application && !subnet.deleted)
            .map(|subnet| subnet.id)
            .collect();
        if open.is_empty() {
            vec![self.default_subnet().id]
        } else {
            open
        }
    }

    fn ledger_create(&mut self, request: &Request, (args,): (CreateArgs,)) -> Managed {
        let (selected, settings) = match args.creation_args {
            Some(args) => (args.subnet_selection, args.settings),
            None => (None, None),
        };
        let subnet = match selected {
            Some(SubnetSelection::Subnet { subnet }) => Ok(subnet),
            Some(SubnetSelection::Filter {
                subnet_type: Some(kind),
            }) => Err(format!("there are no subnets of a type {kind} here")),
            Some(SubnetSelection::Filter { subnet_type: None }) | None => {
                Ok(self.default_subnet().id)
            }
        };
        let balance = self.mintable(u128::try_from(&args.amount.0).unwrap_or(u128::MAX));
        let made = subnet.and_then(|subnet| {
            let there = self.subnets.iter().any(|other| other.id == subnet);
            let wanted = Wanted {
                subnet: Some(subnet),
                settings,
                balance,
                specified: None,
                sender_version: None,
            };
            let made = there.then(|| self.make(request, wanted));
            let made = made.ok_or_else(|| format!("there is no subnet {subnet}"))?;
            made.map_err(|reject| reject.message)
        });
        reply(&match made {
            Ok(canister_id) => {
                self.mint(balance);
                Created::Ok {
                    block_id: self.new_id().into(),
                    canister_id,
                }
            }
            Err(error) => Created::Err(NotCreated::FailedToCreate {
                error,
                refund_block: None,
                fee_block: None,
            }),
        })
    }

    fn ledger_withdraw(&mut self, (args,): (WithdrawArgs,)) -> Managed {
        let amount = u128::try_from(&args.amount.0).unwrap_or(u128::MAX);
        let receiver = args.to;
        let withdrawn: Result<Nat, NotWithdrawn> = match self.add_cycles(&receiver, amount) {
            Some(_) => Ok(self.new_id().into()),
            None => Err(NotWithdrawn::InvalidReceiver { receiver }),
        };
        reply(&withdrawn)
    }

    fn ledger_deposit(&mut self, request: &Request) -> Managed {
        self.lose(request.subnet, request.cycles);
        let deposited = Deposited {
            balance: BALANCE.into(),
            block_index: self.new_id().into(),
        };
        Ok(Done::Reply {
            bytes: encode(&deposited),
            cycles_kept: request.cycles,
        })
    }
}
