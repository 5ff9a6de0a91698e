//! Every input that a fuzzer has kept is tried again.

use std::{fs, path::Path};

#[test]
fn every_kept_input_keeps_every_promise() {
    for (name, target) in openstorage_fuzz::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let inputs: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("the folder can be read").path())
            .collect();
        assert!(!inputs.is_empty(), "{} is empty", folder.display());
        for path in inputs {
            // A promise that breaks names its input.
            println!("{}", path.display());
            target(&fs::read(&path).expect("it can be read"));
        }
    }
}
