//! Reads a script: lines to commands, with everything that is wrong about a line.

use super::stage::Source;

/// One line's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Source(String, Source),
    Hold(bool),
    Connect(String),
    Send(String, Vec<u8>),
    Finish(String),
    Reply { client: String, status: u16, without_body: bool },
    Header(String, String, Option<String>),
    NoHeader(String, String),
    Body(String, Vec<u8>),
    SameHead(String),
    Ends(String),
    Silent(String),
    Advance(u64),
    Counter { name: String, label: String, value: u64 },
    Drain,
    Exits,
}

impl Command {
    /// Whether it can fail.
    const fn is_expectation(&self) -> bool {
        match self {
            Self::Reply { .. }
            | Self::Header(..)
            | Self::NoHeader(..)
            | Self::Body(..)
            | Self::SameHead(_)
            | Self::Ends(_)
            | Self::Silent(_)
            | Self::Counter { .. }
            | Self::Exits => true,
            Self::Source(..)
            | Self::Hold(_)
            | Self::Connect(_)
            | Self::Send(..)
            | Self::Finish(_)
            | Self::Advance(_)
            | Self::Drain => false,
        }
    }

    /// The client that it concerns.
    fn client(&self) -> Option<&str> {
        match self {
            Self::Send(client, _)
            | Self::Finish(client)
            | Self::Reply { client, .. }
            | Self::Header(client, ..)
            | Self::NoHeader(client, _)
            | Self::Body(client, _)
            | Self::SameHead(client)
            | Self::Ends(client)
            | Self::Silent(client) => Some(client),
            Self::Source(..)
            | Self::Hold(_)
            | Self::Connect(_)
            | Self::Advance(_)
            | Self::Counter { .. }
            | Self::Drain
            | Self::Exits => None,
        }
    }
}

/// The one stage on which a script plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// It needs simulated time or an origin that obeys.
    Simulator,
    /// It needs the program.
    Process,
}

/// A script.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its file's name.
    pub name: String,
    /// What it shows, with the section of the RFC.
    pub title: String,
    /// The configuration file.
    pub file: String,
    /// Settings as `section.key=value`.
    pub config: Vec<String>,
    /// Where it plays, if not everywhere.
    pub only: Option<Only>,
    /// The commands with their line numbers.
    pub(super) commands: Vec<(usize, Command)>,
}

impl Script {
    /// Reads the script `text` of the file `name`.
    ///
    /// # Errors
    /// `file:line: what is wrong`, for the first line that is.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let title = text.lines().next().and_then(|line| line.strip_prefix("# "));
        let title = title.ok_or_else(|| format!("{name}:1: begin with `# ` and what is shown"))?;
        let mut script = Self {
            name: name.to_owned(),
            title: title.to_owned(),
            file: String::new(),
            config: Vec::new(),
            only: None,
            commands: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let at = |error| format!("{name}:{}: {error}", index + 1);
            script.line(index + 1, line.trim_end()).map_err(at)?;
        }
        script.check().map_err(|error| format!("{name}: {error}"))?;
        Ok(script)
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (word, rest) = split(line);
        let command = match word {
            "config" => {
                self.config.push(rest.to_owned());
                return Ok(());
            }
            "file" => {
                self.file.extend([rest, "\n"]);
                return Ok(());
            }
            "only" => {
                let (stage, reason) = rest.split_once(": ").ok_or("say `only STAGE: reason`")?;
                if reason.is_empty() || self.only.is_some() {
                    return Err("one stage, and a reason".to_owned());
                }
                self.only = Some(match stage {
                    "simulator" => Only::Simulator,
                    "process" => Only::Process,
                    _ => return Err(format!("no stage is called {stage}")),
                });
                return Ok(());
            }
            "origin" => origin(rest)?,
            "client" if is_name(rest) => Command::Connect(rest.to_owned()),
            "advance" => Command::Advance(milliseconds(rest)?),
            "drain" if rest.is_empty() => Command::Drain,
            "exits" if rest.is_empty() => Command::Exits,
            "counter" => counter(rest)?,
            client => self.client_command(client, rest)?,
        };
        self.commands.push((number, command));
        Ok(())
    }

    fn client_command(&self, client: &str, rest: &str) -> Result<Command, String> {
        let known = |command: &Command| matches!(command, Command::Connect(name) if name == client);
        if !self.commands.iter().any(|(_, command)| known(command)) {
            return Err(format!("neither a command nor a client: {client}"));
        }
        let (verb, rest) = split(rest);
        let client = client.to_owned();
        Ok(match verb {
            ">" => Command::Send(client, format!("{rest}\r\n").into_bytes()),
            "get" | "head" => {
                let method = verb.to_uppercase();
                let text = format!("{method} {rest} HTTP/1.1\r\nHost: pelton\r\n\r\n");
                Command::Send(client, text.into_bytes())
            }
            "raw" => Command::Send(client, bytes(rest)?),
            "<" => {
                let (status, rest) = split(rest);
                let without_body = match rest {
                    "" => false,
                    "without body" => true,
                    _ => return Err("say `< STATUS` or `< STATUS without body`".to_owned()),
                };
                let status = status.parse().map_err(|_| "no status")?;
                Command::Reply { client, status, without_body }
            }
            "header" => match rest.split_once(": ") {
                Some((name, value)) => {
                    Command::Header(client, name.to_owned(), Some(value.to_owned()))
                }
                None => Command::Header(client, rest.to_owned(), None),
            },
            "no" => match rest.strip_prefix("header ") {
                Some(name) => Command::NoHeader(client, name.to_owned()),
                None => return Err("say `no header NAME`".to_owned()),
            },
            "body" => Command::Body(client, value(rest)),
            "same" if rest == "head" => Command::SameHead(client),
            "ends" if rest.is_empty() => Command::Ends(client),
            "silent" if rest.is_empty() => Command::Silent(client),
            "finish" if rest.is_empty() => Command::Finish(client),
            _ => return Err(format!("unknown command: {verb}")),
        })
    }

    /// What only the whole script shows.
    fn check(&self) -> Result<(), String> {
        let commands = || self.commands.iter().map(|(_, command)| command);
        if !commands().any(Command::is_expectation) {
            return Err("nothing is expected".to_owned());
        }
        let mut names = Vec::new();
        for command in commands() {
            if let Command::Connect(name) = command {
                let used = commands().any(|c| c.client() == Some(name) && c.is_expectation());
                if !used {
                    return Err(format!("client {name} expects nothing"));
                }
                if names.contains(&name) {
                    return Err(format!("client {name} connects twice"));
                }
                names.push(name);
            }
        }
        self.check_replies()?;
        match (self.only, self.needs_simulator()) {
            (Some(Only::Simulator), false) => {
                Err("nothing in it needs the simulator: remove `only`".to_owned())
            }
            (None | Some(Only::Process), true) => {
                Err("it needs `only simulator: reason`".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Headers and bodies are expected of a reply.
    fn check_replies(&self) -> Result<(), String> {
        for (index, (line, command)) in self.commands.iter().enumerate() {
            let replies = self.commands[..index].iter().filter(|(_, before)| {
                matches!(before, Command::Reply { client, .. }
                    if Some(client.as_str()) == command.client())
            });
            let least = if matches!(command, Command::SameHead(_)) {
                2
            } else {
                usize::from(matches!(
                    command,
                    Command::Header(..) | Command::NoHeader(..) | Command::Body(..)
                ))
            };
            if replies.count() < least {
                return Err(format!("line {line}: it needs {least} replies before"));
            }
        }
        Ok(())
    }

    fn needs_simulator(&self) -> bool {
        let is_client = |(_, command): &(usize, Command)| matches!(command, Command::Connect(_));
        let first = self.commands.iter().position(is_client).unwrap_or(usize::MAX);
        self.commands.iter().enumerate().any(|(index, (_, command))| {
            let changes = index > first && matches!(command, Command::Source(..));
            changes
                || matches!(
                    command,
                    Command::Hold(_)
                        | Command::Advance(_)
                        | Command::Silent(_)
                        | Command::Source(_, Source::Failing | Source::Late | Source::Keeps(_))
                )
        })
    }

    /// What the origin has before anybody connects.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.commands.iter().filter_map(|(_, command)| {
            if let Command::Source(key, source) = command {
                Some((key.as_str(), source))
            } else {
                None
            }
        })
    }

    /// Whether it must not meet what another script has left.
    #[must_use]
    pub fn wants_own_server(&self) -> bool {
        let looks = |command: &Command| {
            matches!(command, Command::Counter { .. } | Command::Drain)
                || matches!(command, Command::Header(_, name, _) if name == "Cache-Status")
        };
        !self.config.is_empty()
            || !self.file.is_empty()
            || self.commands.iter().any(|(_, command)| looks(command))
    }
}

/// The first word, and the rest without the space between.
fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// `KEY has VALUE`, `KEY keeps VALUE`, `KEY absent`, `KEY failing`, `KEY late`, `hold`, `release`.
fn origin(text: &str) -> Result<Command, String> {
    let (key, rest) = split(text);
    let source = match (key, split(rest)) {
        ("hold", ("", _)) => return Ok(Command::Hold(true)),
        ("release", ("", _)) => return Ok(Command::Hold(false)),
        (_, ("has", text)) if !text.is_empty() => Source::Has(value(text)),
        (_, ("keeps", text)) if !text.is_empty() => Source::Keeps(value(text)),
        (_, ("absent", "")) => Source::Absent,
        (_, ("failing", "")) => Source::Failing,
        (_, ("late", "")) => Source::Late,
        _ => return Err("say what the origin has".to_owned()),
    };
    Ok(Command::Source(key.to_owned(), source))
}

/// A value: as it stands, or `N bytes` for a JSON string of that size.
fn value(text: &str) -> Vec<u8> {
    let size = text.strip_suffix(" bytes").and_then(|size| size.parse::<usize>().ok());
    match size {
        Some(size) => format!("\"{}\"", "x".repeat(size.saturating_sub(2))).into_bytes(),
        None => text.as_bytes().to_vec(),
    }
}

/// `NAME VALUE` or `NAME{label} VALUE`.
fn counter(text: &str) -> Result<Command, String> {
    let (series, value) = text.rsplit_once(' ').ok_or("say `counter NAME VALUE`")?;
    let value = value.parse().map_err(|_| "no whole number")?;
    let (name, label) = series.split_once('{').unwrap_or((series, "}"));
    let label = label.strip_suffix('}').ok_or("no end of the label")?;
    Ok(Command::Counter { name: name.to_owned(), label: label.to_owned(), value })
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let (number, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => return Err("a time ends with ms or s".to_owned()),
    };
    number.parse::<u64>().map(|number| number * factor).map_err(|_| "no whole number".to_owned())
}

/// `"text"` or `COUNT * "text"`, with the escapes `\r \n \t \0 \" \\ \xHH`.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let (count, quoted) = match text.split_once(" * ") {
        Some((count, quoted)) if !text.starts_with('"') => {
            (count.parse::<usize>().map_err(|_| "no count")?, quoted)
        }
        _ => (1, text),
    };
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let mut rest = inner.ok_or("bytes stand in quotes")?.bytes();
    let mut out = Vec::new();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(byte @ (b'"' | b'\\')) => byte,
                Some(b'x') => {
                    let digits = [rest.next().unwrap_or(0), rest.next().unwrap_or(0)];
                    let digits = std::str::from_utf8(&digits).map_err(|_| "no hex digits")?;
                    u8::from_str_radix(digits, 16).map_err(|_| "no hex digits")?
                }
                _ => return Err("no such escape".to_owned()),
            },
            byte => byte,
        });
    }
    Ok(out.repeat(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(lines: &str) -> String {
        Script::parse("t.wire", &format!("# t\n{lines}")).expect_err(lines)
    }

    #[test]
    fn what_is_wrong_with_a_script_is_named_with_its_line() {
        let rows = [
            ("fly\n", "t.wire:2: neither a command nor a client"),
            ("client a\na fly\n", "t.wire:3: unknown command"),
            ("client a\na < two\n", "t.wire:3: no status"),
            ("client a\na < 200 please\n", "t.wire:3: say"),
            ("client a\na raw x\n", "t.wire:3: bytes stand in quotes"),
            ("client a\na raw \"\\q\"\n", "t.wire:3: no such escape"),
            ("client a\na raw \"\\xg0\"\n", "t.wire:3: no hex digits"),
            ("advance 5\n", "t.wire:2: a time ends"),
            ("counter x\n", "t.wire:2: say"),
            ("origin k\n", "t.wire:2: say what"),
            ("only moon: far\n", "t.wire:2: no stage"),
            ("only simulator\n", "t.wire:2: say"),
            ("client a\na get /\n", "nothing is expected"),
            ("client a\nclient b\na ends\n", "client b expects nothing"),
            ("client a\nclient a\na ends\n", "client a connects twice"),
            ("client a\na body 1\n", "line 3: it needs 1 replies"),
            ("client a\na < 200\na same head\n", "line 4: it needs 2 replies"),
            ("client a\nadvance 1s\na ends\n", "it needs `only simulator"),
            ("only simulator: why\nclient a\na ends\n", "nothing in it needs the simulator"),
        ];
        for (lines, wanted) in rows {
            let error = error(lines);
            assert!(error.contains(wanted), "{lines:?} gives {error:?}");
        }
        assert!(Script::parse("t.wire", "client a\n").is_err());
    }

    #[test]
    fn bytes_have_escapes_and_counts() {
        assert_eq!(bytes(r#""a\r\n\t\0\"\\\xe9""#).unwrap(), b"a\r\n\t\0\"\\\xe9");
        assert_eq!(bytes(r#"3 * "ab""#).unwrap(), b"ababab");
        assert_eq!(bytes(r#""2 * 3""#).unwrap(), b"2 * 3");
    }
}
