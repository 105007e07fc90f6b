//! Order of options: they may stand before or behind the subcommand.

use std::ffi::OsString;

/// Options with a value that every subcommand has that talks to a node.
const SHARED: [&str; 4] = ["--node", "--key", "--output", "-o"];

/// A subcommand whose nested subcommands carry the options, since not all of them talk to a node.
const NESTED: &str = "cluster";

/// Moves shared options from before the first subcommand to behind it, and a call for help to the end, so
/// that the help is for the subcommand.
pub(crate) fn in_order(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter().peekable();
    let (mut ordered, mut moved): (Vec<_>, Vec<_>) = (args.next().into_iter().collect(), Vec::new());
    let mut help = None;
    while let Some(arg) = args.peek().and_then(|arg| arg.to_str()) {
        let is_help = matches!(arg, "--help" | "-h");
        let (has_value, is_whole) = of_shared(arg);
        if !is_help && !has_value {
            break;
        }
        let arg = args.next();
        match is_help {
            true => help = arg,
            false => moved.extend(arg),
        }
        if has_value && !is_whole {
            moved.extend(args.next());
        }
    }
    let subcommand = args.next();
    let is_nested = subcommand.as_ref().is_some_and(|name| name == NESTED);
    ordered.extend(subcommand);
    let is_word = |arg: &OsString| !arg.as_encoded_bytes().starts_with(b"-");
    if is_nested {
        ordered.extend(args.next_if(is_word));
    }
    ordered.append(&mut moved);
    // Arguments behind two dashes are no options.
    let rest: Vec<_> = args.collect();
    let end = rest.iter().position(|arg| arg == "--").unwrap_or(rest.len());
    let (before, behind) = rest.split_at(end);
    ordered.extend(before.iter().cloned().chain(help).chain(behind.iter().cloned()));
    ordered
}

/// Tells whether `arg` is an option of [`SHARED`], and whether it includes its value.
fn of_shared(arg: &str) -> (bool, bool) {
    if SHARED.contains(&arg) {
        return (true, false);
    }
    let long = arg
        .split_once('=')
        .is_some_and(|(name, _)| SHARED.contains(&name));
    let short = arg.len() > 2 && arg.starts_with("-o") && !arg.starts_with("--");
    (long || short, long || short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_may_stand_before_the_subcommand() {
        for (given, read) in [
            ("weir -o json topic list", "weir topic -o json list"),
            (
                "weir --node=a:1 -ojson topic list t",
                "weir topic --node=a:1 -ojson list t",
            ),
            ("weir --node a:1 --key k status", "weir status --node a:1 --key k"),
            ("weir topic list -o json", "weir topic list -o json"),
            ("weir --help topic list", "weir topic list --help"),
            ("weir -h -o json topic", "weir topic -o json -h"),
            (
                "weir --node a:1 cluster status -o json",
                "weir cluster status --node a:1 -o json",
            ),
            ("weir --node a:1 cluster", "weir cluster --node a:1"),
            ("weir --help", "weir --help"),
            ("weir -h produce t -- x", "weir produce t -h -- x"),
            ("weir --version", "weir --version"),
            ("weir", "weir"),
            ("weir --node", "weir --node"),
            ("weir produce t --key-field -o", "weir produce t --key-field -o"),
        ] {
            let words = given.split(' ').map(OsString::from);
            let ordered = in_order(words);
            let ordered: Vec<_> = ordered.iter().filter_map(|arg| arg.to_str()).collect();
            assert_eq!(ordered.join(" "), read, "{given}");
        }
    }
}
