//! A page as a sequence of prose, files, wishes and commands.

use super::lab::Lab;
use super::same::same;

/// A page that has been played.
#[derive(Default)]
pub struct Played {
    /// The page with what its commands printed.
    pub text: String,
    /// What differs from the page.
    pub differs: Vec<String>,
    /// How many commands it has.
    pub commands: usize,
}

impl Played {
    fn lines(&mut self, lines: &[&str]) {
        for line in lines {
            self.text += line;
            self.text.push('\n');
        }
    }

    /// Runs a command; `shown` is its output on the page.
    fn command(&mut self, (lines, shown): (&[&str], &[&str]), lab: &mut Lab) {
        let (host, first) = prompt(lines[0]).unwrap_or_else(|| panic!("no prompt in {:?}", lines[0]));
        let command = [&[first], &lines[1..]].concat().join("\n");
        let output = lab.run(host, &command);
        let got: Vec<&str> = output.lines().collect();
        self.commands += 1;
        self.lines(lines);
        if same(&command, shown, &got) {
            return self.lines(shown);
        }
        let [page, printed] = [shown, &got].map(|lines| lines.join("\n"));
        self.differs.push(format!("{}\n--- the page:\n{page}\n--- printed:\n{printed}\n", lines.join("\n")));
        self.lines(&got);
    }

    /// Runs the commands of a block.
    fn console(&mut self, block: &[&str], lab: &mut Lab) {
        let mut at = 0;
        while at < block.len() {
            let command =
                (at..block.len()).find(|place| !block[*place].ends_with('\\')).map_or(block.len(), |last| last + 1);
            let end = (command..block.len()).find(|place| prompt(block[*place]).is_some()).unwrap_or(block.len());
            self.command((&block[at..command], &block[command..end]), lab);
            at = end;
        }
    }
}

/// Splits a command line into the host of its prompt (empty: the source tree) and the command.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (host, command) =
        line.split_once("$ ").or_else(|| line.split_once("# ").filter(|(host, _)| !host.is_empty()))?;
    let is_host = host.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    is_host.then_some((host, command))
}

/// Plays a page in a network.
pub fn play(text: &str, lab: &mut Lab) -> Played {
    let mut played = Played::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        played.lines(&[line]);
        if let Some(wish) = line.strip_prefix("<!-- lab: ").and_then(|rest| rest.strip_suffix(" -->")) {
            lab.wish(wish);
        }
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim_start() != "```").collect();
        match language {
            "console" => played.console(&block, lab),
            _ => played.lines(&block),
        }
        if let Some(path) = block.first().and_then(|line| line.strip_prefix("# /")).filter(|_| language == "toml") {
            lab.file(&format!("/{path}"), &block);
        }
        played.lines(&["```"]);
    }
    played
}

#[test]
fn a_prompt_names_the_host() {
    for (line, want) in [
        ("gateway# eqctl status", Some(("gateway", "eqctl status"))),
        ("client$ curl http://192.0.2.80/", Some(("client", "curl http://192.0.2.80/"))),
        ("$ equipoise --version", Some(("", "equipoise --version"))),
        ("# a comment", None),
        ("web/web-1  up", None),
        ("POOL  # of", None),
    ] {
        assert_eq!(prompt(line), want, "{line}");
    }
}
