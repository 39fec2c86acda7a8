//! Every input that fuzzing has found worth keeping, and every target.

#![expect(clippy::print_stdout, reason = "the last line before a failure names its input")]

#[cfg(test)]
mod tests {
    use pelton_tests::fuzz::TARGETS;
    use pelton_tests::process::root;
    use std::fs;

    #[test]
    fn every_target_takes_every_input_of_its_corpus() {
        for (name, target) in TARGETS {
            let folder = root().join("tests/fuzz/corpus").join(name);
            let inputs = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut count = 0;
            for input in inputs {
                let path = input.unwrap().path();
                println!("{}", path.display());
                target(&fs::read(path).unwrap());
                count += 1;
            }
            assert!(count >= 10, "the corpus of {name} is worth the name");
        }
    }

    #[test]
    fn every_target_has_a_program() {
        let manifest = fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
