//! Many canisters: calls, money, accounts, queries, faults, and the whole of it saved and done again.

mod accounts;
mod bench;
mod calls;
mod faults;
mod money;
mod queries;
mod routes;
mod snapshots;
mod subnets;
mod workload;
