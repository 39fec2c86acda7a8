//! Reads a file and `--set` overrides into checked values in the order of the table.
//!
//! Nothing stops at the first mistake: what is wrong is collected with its place, and values come
//! out only if nothing was wrong.

use super::kind::{Form, Raw, Value};
use super::problem::{ConfigError, Problem};
use super::{PARAMETERS, Parameter, TENANT_PARAMETERS, Tenant};
use miette::NamedSource;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The list of tenants.
const TENANT: &str = "tenant";

/// A value for each parameter: its default, or what `text` says, or what the last of `sets` says;
/// and the tenants that `text` names.
pub(crate) fn read(
    name: &str,
    text: &str,
    sets: &[String],
) -> Result<(Vec<Value>, Vec<Tenant>), ConfigError> {
    let mut values: Vec<Value> = PARAMETERS.iter().map(default).collect();
    let mut reader = Reader { name, text, values: &mut values, problems: Vec::new() };
    let tenants = reader.file();
    let mut problems = reader.problems;
    for set in sets {
        let mut reader = Reader { name: "--set", text: set, values: &mut values, problems };
        reader.set();
        problems = reader.problems;
    }
    if problems.is_empty() { Ok((values, tenants)) } else { Err(ConfigError::new(problems)) }
}

/// The value that `parameter` has where nothing sets it.
fn default(parameter: &Parameter) -> Value {
    let line = format!("default = {}", parameter.default);
    let table = DeTable::parse(&line).expect("every default is TOML").into_inner();
    let value = table.get("default").expect("the line sets it");
    parameter.kind.read(&raw(value)).expect("every default passes its own check")
}

/// Reads one source, and remembers what is wrong with it.
struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    values: &'a mut [Value],
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Reads the source as a TOML file. Returns the tenants that it names.
    fn file(&mut self) -> Vec<Tenant> {
        let text = self.text;
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let what = format!("{} is not valid TOML", self.name);
            let help = "write sections as [name] and values as key = value, words in quotes";
            self.problem("config::syntax", what, span, error.message().into(), help.into());
        }
        // After a broken line the rest of the table is a guess.
        let mut tenants = Vec::new();
        if !errors.is_empty() {
            return tenants;
        }
        for (section, value) in table.get_ref() {
            let name: &str = section.get_ref();
            if name == TENANT {
                self.tenants(section.span(), value.get_ref(), &mut tenants);
            } else if !PARAMETERS.iter().any(|parameter| parameter.section == name) {
                self.unknown_section(name, section.span());
            } else if let DeValue::Table(keys) = value.get_ref() {
                for (key, value) in keys {
                    self.key(name, key.get_ref(), key.span(), |parameter| {
                        parameter.kind.read(&raw(value)).map_err(|wrong| (wrong.span, wrong.what))
                    });
                }
            } else {
                let what = format!("`{name}` is a section");
                let help = format!("write [{name}] on a line of its own, and its keys below");
                self.problem("config::value", what, section.span(), "not a key".into(), help);
            }
        }
        tenants
    }

    /// Reads what stands below each `[[tenant]]`.
    fn tenants(&mut self, span: Range<usize>, value: &DeValue<'_>, tenants: &mut Vec<Tenant>) {
        let DeValue::Array(items) = value else {
            let what = format!("there may be several tenants, and `{TENANT}` is one");
            let help = format!("write [[{TENANT}]] on a line of its own, and its keys below");
            self.problem("config::value", what, span, "not in a list".into(), help);
            return;
        };
        for item in items {
            let mut values: Vec<Value> = TENANT_PARAMETERS.iter().map(default).collect();
            let DeValue::Table(keys) = item.get_ref() else {
                let what = format!("an item of `{TENANT}` is no table");
                let help = format!("write [[{TENANT}]] on a line of its own, and its keys below");
                self.problem("config::value", what, item.span(), "this one".into(), help);
                continue;
            };
            let mut reader = Reader {
                name: self.name,
                text: self.text,
                values: &mut values,
                problems: std::mem::take(&mut self.problems),
            };
            for (key, value) in keys {
                reader.key_of(TENANT_PARAMETERS, TENANT, key.get_ref(), key.span(), |parameter| {
                    parameter.kind.read(&raw(value)).map_err(|wrong| (wrong.span, wrong.what))
                });
            }
            self.problems = reader.problems;
            let tenant = Tenant::from_values(&mut values.into_iter());
            if let Some((what, help)) = tenant.fault(tenants) {
                let label = format!("tenant `{}`", tenant.name);
                self.problem("config::tenant", what, item.span(), label, help.into());
            }
            tenants.push(tenant);
        }
    }

    /// Reads the source as `section.key=value`.
    fn set(&mut self) {
        let text = self.text;
        let Some(((section, key), value)) = text
            .split_once('=')
            .and_then(|(path, value)| Some((path.trim().split_once('.')?, value.trim())))
        else {
            let what = "an override is not of the form section.key=value".into();
            let help = "write for example --set cache.memory=256MiB".into();
            self.problem("config::set", what, 0..text.len(), "this one".into(), help);
            return;
        };
        let start = text.len() - text.trim_start().len();
        if section == TENANT {
            let what = "tenants are a list".into();
            let help = format!("write [[{TENANT}]] into a file, and name it with -c");
            self.problem("config::set", what, 0..text.len(), "not set by itself".into(), help);
            return;
        }
        if !PARAMETERS.iter().any(|parameter| parameter.section == section) {
            self.unknown_section(section, start..start + section.len());
            return;
        }
        let key_start = start + section.len() + 1;
        let value_start = text.find('=').map_or(0, |at| at + 1);
        self.key(section, key, key_start..key_start + key.len(), |parameter| {
            set_value(parameter, value).map_err(|what| (value_start..text.len(), what))
        });
    }

    /// Sets the value of `section.key` to what `read` makes of it.
    fn key(
        &mut self,
        section: &str,
        key: &str,
        span: Range<usize>,
        read: impl FnOnce(&Parameter) -> Result<Value, (Range<usize>, String)>,
    ) {
        self.key_of(PARAMETERS, section, key, span, read);
    }

    /// Does that for a key of `rows`, which are those of the values.
    fn key_of(
        &mut self,
        rows: &[Parameter],
        section: &str,
        key: &str,
        span: Range<usize>,
        read: impl FnOnce(&Parameter) -> Result<Value, (Range<usize>, String)>,
    ) {
        let found = rows.iter().position(|p| p.section == section && p.key == key);
        let Some(at) = found else {
            self.unknown_key(rows, section, key, span);
            return;
        };
        match read(&rows[at]) {
            Ok(value) => self.values[at] = value,
            Err((span, label)) => {
                let what = format!("`{section}.{key}` has no valid value");
                let help = format!("expected {}", rows[at].kind.expected());
                self.problem("config::value", what, span, label, help);
            }
        }
    }

    fn unknown_section(&mut self, name: &str, span: Range<usize>) {
        let mut sections: Vec<&str> = PARAMETERS.iter().map(|p| p.section).collect();
        sections.dedup();
        sections.push(TENANT);
        // A key that stands before the first section is a common slip.
        let home = PARAMETERS.iter().find(|parameter| parameter.key == name);
        let help = match (nearest(name, &sections), home) {
            (Some(TENANT), _) => format!("did you mean [[{TENANT}]]?"),
            (Some(near), _) => format!("did you mean [{near}]?"),
            (None, Some(home)) => format!("`{name}` belongs below [{}]", home.section),
            (None, None) => format!("the sections are {}", sections.join(", ")),
        };
        let what = format!("unknown section `{name}`");
        self.problem("config::unknown_section", what, span, "not a section".into(), help);
    }

    fn unknown_key(&mut self, rows: &[Parameter], section: &str, key: &str, span: Range<usize>) {
        let rows = rows.iter().filter(|parameter| parameter.section == section);
        let keys: Vec<&str> = rows.map(|parameter| parameter.key).collect();
        let elsewhere = PARAMETERS.iter().find(|parameter| parameter.key == key);
        let help = match (nearest(key, &keys), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(home)) => format!("`{key}` belongs below [{}]", home.section),
            (None, None) => format!("the keys of [{section}] are {}", keys.join(", ")),
        };
        let what = format!("unknown key `{key}` in [{section}]");
        self.problem("config::unknown_key", what, span, "not a key".into(), help);
    }

    fn problem(
        &mut self,
        code: &'static str,
        what: String,
        span: Range<usize>,
        label: String,
        help: String,
    ) {
        let source = NamedSource::new(self.name, self.text.to_owned());
        self.problems.push(Problem { code, what, place: Some((span, label)), help, source });
    }
}

/// Reads the value of an override: as TOML, or else as text that needs no quotes here.
fn set_value(parameter: &Parameter, text: &str) -> Result<Value, String> {
    let line = format!("value = {text}");
    if let Ok(table) = DeTable::parse(&line)
        && let [(_, value)] = table.get_ref().iter().collect::<Vec<_>>()[..]
        && let Ok(value) = parameter.kind.read(&raw(value))
    {
        return Ok(value);
    }
    let read = |form| parameter.kind.read(&Raw { span: 0..0, form }).map_err(|wrong| wrong.what);
    // Text comes first: a key of 32 digits may be a number too.
    let as_text = read(Form::Text(text.trim_matches('"').into()));
    match text.parse() {
        Ok(number) if as_text.is_err() => read(Form::Integer(Some(number))),
        _ => as_text,
    }
}

/// What was written, in the forms that parameters have.
fn raw(value: &Spanned<DeValue<'_>>) -> Raw {
    let form = match value.get_ref() {
        DeValue::String(text) => Form::Text(text.as_ref().into()),
        DeValue::Integer(number) => {
            Form::Integer(u64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Boolean(flag) => Form::Flag(*flag),
        DeValue::Array(items) => Form::List(items.iter().map(raw).collect()),
        DeValue::Float(_) => Form::Foreign("a fraction"),
        DeValue::Datetime(_) => Form::Foreign("a date"),
        DeValue::Table(_) => Form::Foreign("a table"),
    };
    Raw { span: value.span(), form }
}

/// The one of `names` that `name` was probably meant to be.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    let near = names.iter().copied().min_by_key(distance)?;
    // A third of a name may be mistyped; beyond that a suggestion is a guess.
    (distance(&near) <= near.len().div_ceil(3)).then_some(near)
}

#[cfg(test)]
mod tests {
    use crate::config::{Address, Config};

    /// The rendered error of a file and overrides.
    fn error(text: &str, sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|set| (*set).into()).collect();
        let error = Config::parse("pelton.toml", text, &sets).expect_err("it is wrong");
        error.render(false)
    }

    #[track_caller]
    fn says(error: &str, parts: &[&str]) {
        for part in parts {
            assert!(error.contains(part), "{part:?} is missing in:\n{error}");
        }
    }

    #[test]
    fn an_unknown_key_names_the_line_and_the_nearest_key() {
        let error = error("[cache]\n\nttl = \"1s\"\nmemroy = \"1GiB\"\n", &[]);
        says(
            &error,
            &["config::unknown_key", "[pelton.toml:4:1]", "memroy", "did you mean `memory`?"],
        );
    }

    #[test]
    fn a_key_of_another_section_is_sent_home() {
        says(&error("[http]\nmemory = \"1GiB\"", &[]), &["`memory` belongs below [cache]"]);
        says(&error("drain_timeout = \"1s\"", &[]), &["`drain_timeout` belongs below [server]"]);
    }

    #[test]
    fn an_unknown_section_names_the_nearest_section() {
        says(
            &error("[chache]\nttl = \"1s\"", &[]),
            &["unknown section `chache`", "[pelton.toml:1:2]", "did you mean [cache]?"],
        );
    }

    #[test]
    fn a_bad_unit_is_shown_with_what_is_expected() {
        says(
            &error("[http]\nhead_size_max = \"8kb\"", &[]),
            &[
                "[pelton.toml:2:17]",
                "\"8kb\" is not a size",
                "expected a size from \"1KiB\" to \"16KiB\", in B, KiB, MiB, GiB or TiB",
            ],
        );
    }

    #[test]
    fn a_value_of_another_form_is_refused() {
        says(&error("[http]\ncache_control = 1", &[]), &["expected true or false"]);
        says(&error("[http]\nidle_timeout = 1.5", &[]), &["a fraction does not belong here"]);
        says(&error("[http]\nkey_size_max = -1", &[]), &["the number is out of range"]);
        says(&error("cache = 1", &[]), &["`cache` is a section"]);
        says(
            &error("[server]\nlisten = [\"x:1\"]", &[]),
            &["[pelton.toml:2:11]", "\"x:1\" is not"],
        );
    }

    #[test]
    fn malformed_toml_shows_its_line() {
        says(&error("[http]\nidle_timeout = \n", &[]), &["config::syntax", "[pelton.toml:2:"]);
    }

    #[test]
    fn several_mistakes_are_shown_at_once() {
        let error = error("[http]\nbogus = 1\n[cache]\nttl = 5\n", &["log.level=loud"]);
        says(
            &error,
            &["bogus", "5 has no unit", "[--set:1:11]", "\"loud\" is not one of the words"],
        );
    }

    #[test]
    fn an_override_needs_no_quotes() {
        let sets = [
            "cache.memory=5%",
            "server.cpus=0-3",
            "server.listen=[::1]:80",
            "http.cache_status=false",
            "cache.hash_key=00000000000000010000000000000255",
        ];
        let config = Config::parse("none", "", &sets.map(String::from)).unwrap();
        assert_eq!(config.server.cpus, Some(vec![0, 1, 2, 3]));
        assert_eq!(config.server.listen, ["[::1]:80".parse::<Address>().unwrap()]);
        assert!(!config.http.cache_status);
        assert_eq!(config.cache.hash_key, Some([1, 0x255]));
    }

    #[test]
    fn tenants_are_read_from_the_file() {
        let digest = format!("sha256:{:064}", 1);
        let text = format!(
            "[[tenant]]\nname = \"web\"\nkeys = [\"{digest}\"]\nclass = \"critical\"\n\
             rate = 100\ncache = \"10%\"\nprefix = \"img:\"\n\n\
             [[tenant]]\nname = \"anonymous\"\nmethods = [\"GET\"]\n"
        );
        let config = Config::parse("pelton.toml", &text, &[]).unwrap();
        let [web, anonymous] = &config.tenants[..] else { panic!("two: {:?}", config.tenants) };
        assert_eq!((web.name.as_str(), web.class, web.rate), ("web", "critical", Some(100)));
        assert_eq!((web.keys.len(), web.cache.permille(), web.burst), (1, 100, None));
        assert_eq!(
            (web.methods.as_slice(), web.prefix.as_deref()),
            (&["GET", "POST"][..], Some("img:"))
        );
        assert!(anonymous.is_anonymous() && anonymous.methods == ["GET"]);
        let shown = config.to_json()["tenant"].to_string();
        assert!(shown.contains("1 set, not shown") && !shown.contains("0001"), "{shown}");
    }

    #[test]
    fn what_is_wrong_with_a_tenant_is_shown_at_its_place() {
        let tenant = |name: &str, rest: &str| format!("[[tenant]]\nname = \"{name}\"\n{rest}\n");
        let keys = |n: u32| format!("keys = [\"sha256:{n:064}\"]");
        let web = tenant("web", &keys(1));
        for (text, parts) in [
            (tenant("web", ""), ["[pelton.toml:1:1]", "`web` has no key", "pelton key new"]),
            (tenant("anonymous", &keys(1)), ["config::tenant", "shows no key", "a name"]),
            (
                format!("{web}{}", tenant("web", &keys(2))),
                ["pelton.toml:4:1", "two tenants", "own"],
            ),
            (format!("{web}{}", tenant("b", &keys(1))), ["key of", "`b`", "comes twice"]),
            (tenant("a b", &keys(1)), ["label of metrics", "without spaces", "`a b`"]),
            (tenant("a", "keys = [\"pk_x\"]"), ["[pelton.toml:3:9]", "this is a key", "digest"]),
            (tenant("a", "rat = 5"), ["unknown key `rat`", "did you mean `rate`?", "3:1"]),
            (tenant("a", "burst = 5\nclass = \"x\""), ["not one of the words", "critical", "4:9"]),
            (tenant("anonymous", "burst = 5"), ["a burst and no rate", "rate", "`anonymous`"]),
            (
                format!("{web}cache = \"30%\"\n{}cache = \"21%\"\n", tenant("b", &keys(2))),
                ["more than half", "lower", "tenant `b`"],
            ),
            ("[tenant]\nname = \"a\"".into(), ["several tenants", "[[tenant]]", "1:2"]),
            ("[tenants]\n".into(), ["unknown section", "did you mean [[tenant]]?", "1:2"]),
        ] {
            says(&error(&text, &[]), &parts);
        }
        says(&error("", &["tenant.rate=5"]), &["tenants are a list", "[[tenant]]", "-c"]);
    }

    #[test]
    fn a_broken_override_is_shown() {
        says(&error("", &["cache"]), &["config::set", "section.key=value"]);
        says(&error("", &["cache.memory"]), &["config::set"]);
        says(&error("", &["cahce.ttl=1s"]), &["did you mean [cache]?"]);
        says(&error("", &["cache.tll=1s"]), &["did you mean `ttl`?"]);
        says(&error("", &["cache.ttl="]), &["expected a duration"]);
    }
}
