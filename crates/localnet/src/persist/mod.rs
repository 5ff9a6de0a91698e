//! State on disk: the last checkpoint, and a journal of every input since.
//!
//! The network is deterministic, so a restart is the checkpoint plus the same inputs again. An input is in
//! the journal and synced before anybody hears its answer: killing the server loses nothing that was
//! acknowledged. Many inputs share one sync.
//!
//! | file | what |
//! | --- | --- |
//! | `records` | a file of checked records |
//! | `folder` | which files are the state; checkpoints |

mod folder;
mod records;

pub use folder::Folder;
pub use records::Writer as Journal;
