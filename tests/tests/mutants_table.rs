//! The faults of `make mutants` fit the tree: each is one line that is there.

#[cfg(test)]
mod tests {
    use pelton_tests::mutants::table;
    use pelton_tests::process::root;
    use std::collections::BTreeSet;
    use std::fs;

    #[test]
    fn every_fault_can_be_planted_and_has_a_name_of_its_own() {
        let mutants = table::read().unwrap();
        let names: BTreeSet<_> = mutants.iter().map(|mutant| &mutant.name).collect();
        assert_eq!(names.len(), mutants.len());
        let unfit = mutants.iter().filter_map(|mutant| {
            let text = fs::read_to_string(root().join(&mutant.file)).unwrap();
            match mutant.plant(&text) {
                Ok(faulty) if faulty != text => None,
                Ok(_) => Some(format!("{}: it changes nothing", mutant.name)),
                Err(error) => Some(error),
            }
        });
        let unfit: Vec<String> = unfit.collect();
        assert!(unfit.is_empty(), "{}", unfit.join("\n"));
    }
}
