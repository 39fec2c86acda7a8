//! Every input that fuzzing has found worth keeping, and every target.

#![expect(clippy::print_stdout, reason = "the last line before a failure names its input")]

#[cfg(test)]
mod tests {
    use pelton::origin::import::{Entry, EntryLimits, import};
    use pelton::origin::{Store, StoreOptions};
    use pelton_tests::fixture::Fixture;
    use pelton_tests::fuzz::TARGETS;
    use pelton_tests::process::root;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    /// The inputs of a target, in an order that is always the same.
    fn corpus(name: &str) -> Vec<PathBuf> {
        let folder = root().join("tests/fuzz/corpus").join(name);
        let inputs = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut paths: Vec<PathBuf> = inputs.map(|input| input.unwrap().path()).collect();
        paths.sort();
        paths
    }

    #[test]
    fn every_target_takes_every_input_of_its_corpus() {
        for (name, target) in TARGETS {
            let paths = corpus(name);
            for path in &paths {
                println!("{}", path.display());
                target(&fs::read(path).unwrap());
            }
            assert!(paths.len() >= 10, "the corpus of {name} is worth the name");
        }
    }

    #[test]
    fn an_import_of_all_lines_stores_the_good_ones_and_names_the_others_by_number() {
        const LIMITS: EntryLimits = EntryLimits { key_size_max: 16, value_size_max: 64 };
        let mut text = Vec::new();
        for path in corpus("import") {
            text.extend(fs::read(path).unwrap());
            text.push(b'\n');
        }
        text.extend(b"no line feed behind this one");
        let (mut keys, mut bad) = (BTreeSet::new(), Vec::new());
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            match Entry::parse(line, LIMITS) {
                Ok(entry) => drop(keys.insert(entry.key.into_owned())),
                Err((reason, _)) => bad.push((number, reason)),
            }
        }
        let fixture = Fixture::empty();
        let options = StoreOptions { path: fixture.store(), cache_bytes: 4 << 20 };
        let store = Store::open(&options).unwrap();
        let mut told = Vec::new();
        import(&store, &text[..], LIMITS, &mut |number, reason, _| told.push((number, reason)))
            .unwrap();
        assert_eq!(told, bad);
        assert_eq!(store.count().unwrap(), u64::try_from(keys.len()).unwrap());
        assert!(!keys.is_empty() && !bad.is_empty());
    }

    #[test]
    fn every_target_has_a_program() {
        let manifest = fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
