//! Embeds the page: every file in `app/`, as it is and, where that is shorter, gzipped.
//!
//! `app/` holds what `npm run build` in `web/` makes. It is committed, so that building a canister needs
//! nothing but cargo.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=app");
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let app = here.join("app");
    let mut names = Vec::new();
    collect(&app, &app, &mut names);
    names.sort();
    assert!(
        names.iter().any(|name| name == "index.html"),
        "app/ holds no page"
    );

    let mut list = String::from("[\n");
    for (number, name) in names.iter().enumerate() {
        let path = app.join(name);
        let bytes = fs::read(&path).expect("app/ holds files that can be read");
        let packed = gzip(&bytes);
        let gzipped = if packed.len() < bytes.len() {
            let file = out.join(format!("{number}.gz"));
            fs::write(&file, packed).expect("OUT_DIR can be written");
            format!("Some(include_bytes!({file:?}))")
        } else {
            "None".into()
        };
        let _ = writeln!(
            list,
            "File {{ name: {name:?}, bytes: include_bytes!({path:?}), gzipped: {gzipped} }},"
        );
    }
    list.push_str("]\n");
    fs::write(out.join("files.rs"), list).expect("OUT_DIR can be written");
}

/// Names below `app`, with `/` between folder and file.
fn collect(app: &Path, dir: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("app/ is a folder") {
        let path = entry.expect("app/ can be listed").path();
        if path.is_dir() {
            collect(app, &path, names);
        } else {
            let name = path.strip_prefix(app).expect("lies in app/");
            let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
            names.push(parts.join("/"));
        }
    }
}

/// The same bytes for the same input, always: no time and no name in the header.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}
