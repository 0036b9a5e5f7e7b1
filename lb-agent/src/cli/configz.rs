//! What the agent was told, as `/configz` shows it.

use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

/// The flags of a subcommand with their values, given or not, by their names in camel case.
pub(super) fn configuration(command: &Command, matches: &ArgMatches) -> Value {
    let mut flags = Map::new();
    for argument in command.get_arguments() {
        let (Some(name), Ok(Some(values))) = (
            argument.get_long(),
            matches.try_get_raw(argument.get_id().as_str()),
        ) else {
            continue;
        };
        let mut values: Vec<_> = values.map(|value| value.to_string_lossy().into_owned()).collect();
        let value = if argument
            .get_num_args()
            .is_some_and(|count| count.max_values() > 1)
            || values.len() > 1
        {
            json!(values)
        } else {
            match values.pop().unwrap_or_default().as_str() {
                "true" => json!(true),
                "false" => json!(false),
                text => json!(text),
            }
        };
        flags.insert(camel_case(name), value);
    }
    json!({ "sluice.dev": flags })
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |sum, word| {
        let mut letters = word.chars();
        let head = letters.next().map(|letter| letter.to_ascii_uppercase());
        sum + &head.into_iter().chain(letters).collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_flag_is_there_with_its_value() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let arguments = [
            "lb-agent",
            "run",
            "--manifests",
            "here",
            "--node-name",
            "node-a",
            "--devices",
            "eth0",
            "--devices",
            "eth1",
            "--detach-on-exit",
        ];
        let matches = command.clone().get_matches_from(arguments);
        let found = configuration(run, matches.subcommand_matches("run").unwrap());
        let flags = &found["sluice.dev"];
        assert_eq!(flags["manifests"], "here");
        assert_eq!(flags["devices"], json!(["eth0", "eth1"]));
        assert_eq!(flags["detachOnExit"], true);
        assert_eq!(flags["bindAddressHardFail"], false);
        assert_eq!(flags["healthzBindAddress"], "0.0.0.0:10256");
        assert_eq!(flags["xdp"], "auto");
    }
}
