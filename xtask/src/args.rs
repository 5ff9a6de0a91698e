//! The words of the command line, as a command.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::{bench, layers};

/// What `cargo xtask …` is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Menu,
    Build,
    ServerPath,
    Demo(DemoArgs),
    /// The layers named, in the order of the menu; all of the full run when none is.
    Test {
        only: Vec<String>,
        /// Everything that is else sampled.
        full: bool,
    },
    ListLayers,
    /// The bench layers named, in the order of the menu; all when none is.
    Bench {
        only: Vec<String>,
        /// Say the figures as one JSON object.
        json: bool,
    },
    /// The target to fuzz, and for how long.
    Fuzz {
        target: String,
        minutes: u32,
    },
    /// The words that the simulation understands itself.
    Simulate(Vec<OsString>),
}

/// `cargo xtask demo [FILE] [--once] [--json] [--port N] [--trace PAGE]`
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DemoArgs {
    /// None means the picture that the project ships.
    pub file: Option<PathBuf>,
    /// Leave when the file is stored and checked, instead of serving it.
    pub once: bool,
    /// Say the outcome as one JSON object.
    pub json: bool,
    /// Where to serve; none means any free port.
    pub port: Option<u16>,
    /// A page to draw the journey on.
    pub trace: Option<PathBuf>,
}

/// Understands the words after `cargo xtask`, or says in a sentence why it cannot.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut words = words.into_iter();
    let Some(name) = words.next() else {
        return Ok(Command::Menu);
    };
    match name.to_str() {
        Some("help" | "--help" | "-h") => Ok(Command::Menu),
        Some("build") => nothing_more(words, "build", Command::Build),
        Some("server-path") => nothing_more(words, "server-path", Command::ServerPath),
        Some("demo") => demo(words),
        Some("test") => test(words),
        Some("bench") => bench(words),
        Some("fuzz") => fuzz(words),
        Some("simulate") => Ok(Command::Simulate(words.collect())),
        _ => Err(format!("there is no command `{}`.", name.to_string_lossy())),
    }
}

fn nothing_more(
    mut words: impl Iterator<Item = OsString>,
    name: &str,
    command: Command,
) -> Result<Command, String> {
    match words.next() {
        None => Ok(command),
        Some(word) => Err(format!("`{name}` takes no `{}`.", word.to_string_lossy())),
    }
}

fn demo(mut words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut args = DemoArgs::default();
    let mut only_files = false;
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--") if !only_files => only_files = true,
            Some("--once") if !only_files => args.once = true,
            Some("--json") if !only_files => args.json = true,
            Some("--port") if !only_files => {
                let number = words.next().unwrap_or_default();
                args.port = Some(port(&number.to_string_lossy())?);
            }
            Some("--trace") if !only_files => {
                let page = words
                    .next()
                    .ok_or("`--trace` takes the path of a page to write.")?;
                args.trace = Some(page.into());
            }
            Some(flag) if !only_files && flag.starts_with("--trace=") => {
                args.trace = Some(flag["--trace=".len()..].into());
            }
            Some(flag) if !only_files && flag.starts_with("--port=") => {
                args.port = Some(port(&flag["--port=".len()..])?);
            }
            Some(flag) if !only_files && flag.starts_with('-') => {
                return Err(format!("`demo` takes no `{flag}`."));
            }
            _ if args.file.is_some() => {
                return Err(format!(
                    "`demo` takes one FILE; `{}` is a second one.",
                    word.to_string_lossy()
                ));
            }
            _ => args.file = Some(word.into()),
        }
    }
    Ok(Command::Demo(args))
}

fn port(number: &str) -> Result<u16, String> {
    match number.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!(
            "`--port` takes a number from 1 to 65535, not `{number}`."
        )),
    }
}

fn test(mut words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut only = Vec::new();
    let mut full = false;
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--list") => return nothing_more(words, "test --list", Command::ListLayers),
            Some("--full") => full = true,
            Some("--only") => {
                let name = words.next().unwrap_or_default();
                only.push(test_layer(&name.to_string_lossy())?);
            }
            Some(flag) if flag.starts_with("--only=") => {
                only.push(test_layer(&flag["--only=".len()..])?);
            }
            _ => return Err(format!("`test` takes no `{}`.", word.to_string_lossy())),
        }
    }
    Ok(Command::Test { only, full })
}

fn fuzz(mut words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut target = None;
    let mut minutes = 1;
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--minutes") => {
                let number = words.next().unwrap_or_default();
                minutes = number
                    .to_str()
                    .and_then(|number| number.parse().ok())
                    .filter(|minutes| *minutes > 0)
                    .ok_or("`--minutes` takes a number from 1.")?;
            }
            Some(name) if target.is_none() && !name.starts_with('-') => {
                target = Some(name.to_owned());
            }
            _ => return Err(format!("`fuzz` takes no `{}`.", word.to_string_lossy())),
        }
    }
    let target = target.ok_or("`fuzz` takes the name of a target, for instance `token`.")?;
    Ok(Command::Fuzz { target, minutes })
}

fn bench(mut words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut only = Vec::new();
    let mut json = false;
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--json") => json = true,
            Some("--only") => {
                let name = words.next().unwrap_or_default();
                only.push(bench_layer(&name.to_string_lossy())?);
            }
            Some(flag) if flag.starts_with("--only=") => {
                only.push(bench_layer(&flag["--only=".len()..])?);
            }
            _ => return Err(format!("`bench` takes no `{}`.", word.to_string_lossy())),
        }
    }
    Ok(Command::Bench { only, json })
}

fn test_layer(name: &str) -> Result<String, String> {
    layer(name, &layers::ALL.each_ref().map(|layer| layer.name))
}

fn bench_layer(name: &str) -> Result<String, String> {
    layer(name, &bench::ALL.each_ref().map(|layer| layer.name))
}

fn layer(name: &str, names: &[&str]) -> Result<String, String> {
    if names.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "`--only` takes the name of a layer ({}), not `{name}`.",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_command_is_understood() {
        assert_eq!(parse_line(""), Ok(Command::Menu));
        assert_eq!(parse_line("--help"), Ok(Command::Menu));
        assert_eq!(parse_line("build"), Ok(Command::Build));
        assert_eq!(parse_line("server-path"), Ok(Command::ServerPath));
        assert_eq!(parse_line("demo"), Ok(Command::Demo(DemoArgs::default())));
        assert_eq!(parse_line("test --list"), Ok(Command::ListLayers));
        let test = |full| Command::Test { only: vec![], full };
        assert_eq!(parse_line("test"), Ok(test(false)));
        assert_eq!(parse_line("test --full"), Ok(test(true)));
        let words = vec!["--seed".into(), "7".into()];
        assert_eq!(
            parse_line("simulate --seed 7"),
            Ok(Command::Simulate(words))
        );
    }

    #[test]
    fn the_demo_takes_its_words_in_any_order() {
        let expected = Ok(Command::Demo(DemoArgs {
            file: Some("a.jpg".into()),
            once: true,
            json: true,
            port: Some(8080),
            trace: Some("t.html".into()),
        }));
        let words = "demo a.jpg --once --json --port 8080 --trace t.html";
        assert_eq!(parse_line(words), expected);
        let words = "demo --trace=t.html --port=8080 --json a.jpg --once";
        assert_eq!(parse_line(words), expected);
    }

    #[test]
    fn a_file_may_look_like_a_flag() {
        let expected = DemoArgs {
            file: Some("--once".into()),
            ..DemoArgs::default()
        };
        assert_eq!(parse_line("demo -- --once"), Ok(Command::Demo(expected)));
    }

    #[test]
    fn layers_can_be_named_more_than_once() {
        let only = vec!["js".to_owned(), "fmt".to_owned()];
        assert_eq!(
            parse_line("test --only js --only=fmt"),
            Ok(Command::Test { only, full: false })
        );
    }

    #[test]
    fn benches_have_layers_of_their_own() {
        let bench = |only: &[&str], json| {
            let only = only.iter().map(|name| (*name).to_owned()).collect();
            Ok(Command::Bench { only, json })
        };
        assert_eq!(parse_line("bench"), bench(&[], false));
        assert_eq!(
            parse_line("bench --json --only localnet"),
            bench(&["localnet"], true)
        );
        assert_eq!(
            parse_line("bench --only=localnet"),
            bench(&["localnet"], false)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("dance", "`dance`"),
            ("build --fast", "`--fast`"),
            ("demo --fast", "`--fast`"),
            ("demo a b", "`b`"),
            ("demo --port", "``"),
            ("demo --port 0", "`0`"),
            ("demo --port 65536", "`65536`"),
            ("test fmt", "`fmt`"),
            ("test --only everything", "`everything`"),
            ("test --only", "``"),
            ("bench localnet", "`localnet`"),
            ("bench --only fmt", "`fmt`"),
            ("bench --only", "``"),
        ] {
            let sentence = parse_line(line).expect_err(line);
            assert!(sentence.contains(word), "{line}: {sentence}");
        }
    }
}
