//! segprobe proves that low-security workloads in a Kubernetes cluster cannot reach high-security services over TCP and
//! cannot enumerate them over DNS. **A pass must be a proof**: "could not connect" is not "blocked".
//!
//! # The way of the data
//!
//! ```text
//! config ─▶ plan ─▶ sweep ─▶ vantage ─▶ probe ─▶ observation ─▶ verdict ─▶ ledger ─▶ export
//!           (pure)           (sockets)  (effects)               (pure)     (snapshot)  (metrics, page, log, forms)
//! ```
//!
//! One direction, no way back. A room imports only from floors below its own:
//!
//! | floor | rooms |
//! |---|---|
//! | 8 | `main.rs`: arguments, exit code |
//! | 7 | [`command`]: one file a subcommand |
//! | 6 | [`sweep`]: schedule, turns, controls, attempts; [`export`]: metrics, HTTP, page, log, and the forms of a result |
//! | 5 | [`ledger`]: latest results, transitions, findings |
//! | 4 | [`mod@plan`]: configuration and inventory to checks |
//! | 3 | [`discovery`]: what the Kubernetes API tells, as target files; [`inventory`]: who is where: names, pods, identities; [`probe`]: TCP and DNS; [`verdict`]: the rules; [`lab`]: the demo's lab; [`web`]: how HTTP is served |
//! | 2 | [`config`]: the document; [`vantage`]: where sockets are born; [`observation`]: what can be seen; [`pace`]: budgets |
//! | 1 | [`model`]: the words; [`cli`]: the command line |
//!
//! `verdict` and `plan` are pure. Only `vantage` makes the sockets of probes. A probe never knows what was expected, and a
//! verdict never knows how it was measured.

pub mod cli;
pub mod command;
pub mod config;
pub mod discovery;
pub mod export;
pub mod inventory;
pub mod lab;
pub mod ledger;
pub mod model;
pub mod observation;
pub mod pace;
pub mod plan;
pub mod probe;
pub mod sweep;
pub mod vantage;
pub mod verdict;
pub mod web;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs,
        path::{Path, PathBuf},
    };

    /// Every room and its floor, as the table above tells them.
    fn floors() -> BTreeMap<String, u32> {
        let mut floors = BTreeMap::new();
        for line in include_str!("lib.rs").lines().filter_map(|l| l.strip_prefix("//! | ")) {
            let Some((floor, rooms)) = line.split_once(" | ") else { continue };
            let Ok(floor) = floor.parse() else { continue };
            for link in rooms.split("[`").skip(1) {
                let room = link.split('`').next().unwrap().trim_start_matches("mod@");
                assert_eq!(floors.insert(room.to_owned(), floor), None, "{room} has two floors");
            }
        }
        floors
    }

    fn sources(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path());
        entries
            .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
            .filter(|path| path.extension().is_some_and(|e| e == "rs"))
            .collect()
    }

    /// The rooms that a source names with a path from the crate's root, alone or in a list in braces.
    fn rooms_used(source: &str) -> Vec<String> {
        let code: Vec<&str> = source.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        let mut used = Vec::new();
        for rest in code.join("\n").split("crate::").skip(1) {
            let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
            let Some(list) = rest.strip_prefix('{') else {
                used.push(word(rest));
                continue;
            };
            let (mut depth, mut begins) = (0, true);
            for (at, c) in list.char_indices() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begins = true,
                    c if begins && c.is_alphanumeric() => {
                        used.push(word(&list[at..]));
                        begins = false;
                    }
                    _ => {}
                }
            }
        }
        used
    }

    #[test]
    fn a_room_imports_only_from_floors_below_its_own() {
        let floors = floors();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut imports = 0;
        for path in sources(&root) {
            let inside = path.strip_prefix(&root).unwrap();
            let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            if ["lib", "main"].contains(&room) {
                continue;
            }
            let own = floors.get(room).unwrap_or_else(|| panic!("{room} has no floor in the table"));
            for used in rooms_used(&fs::read_to_string(&path).unwrap()) {
                let floor = floors.get(&used).unwrap_or_else(|| panic!("{}: no room `{used}`", inside.display()));
                assert!(
                    used == room || floor < own,
                    "{} (floor {own}) uses `{used}` (floor {floor})",
                    inside.display()
                );
                imports += 1;
            }
        }
        assert!(imports > 50, "only {imports} imports were found: is the reader of sources broken?");
    }

    #[test]
    fn imports_are_read_alone_and_in_braces() {
        let source = "use crate::{a::{B, C}, d::E,\n f};\n// crate::no\nfn x() { crate::g::h() }";
        assert_eq!(rooms_used(source), ["a", "d", "f", "g"]);
    }
}
