//! The image as the Dockerfile tells it agrees with the manifests and with the program.

use clap::Parser;
use segprobe::cli::{Cli, Command};

use super::{WORKLOADS, read, rendered, templates};
use crate::support::have;

/// The one line of the last stage that begins with a word, without it.
fn instruction(dockerfile: &str, word: &str) -> String {
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    let mut lines = last.lines().filter_map(|l| l.strip_prefix(word)?.strip_prefix(' '));
    let line = lines.next().unwrap_or_else(|| panic!("the last stage has no {word}"));
    assert_eq!(lines.next(), None, "the last stage has more than one {word}");
    line.to_owned()
}

#[test]
fn the_last_stage_is_the_binary_alone() {
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.rsplit("\nFROM ").next().unwrap().starts_with("scratch\n"));
    assert_eq!(instruction(&dockerfile, "COPY"), "--from=build /out/segprobe /segprobe");
    assert_eq!(instruction(&dockerfile, "ENTRYPOINT"), "[\"/segprobe\"]");
    let version = format!("org.opencontainers.image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(dockerfile.contains(&version), "the Dockerfile lacks {version}");
    // The compiler is at least the one that the crate promises to build with.
    assert!(dockerfile.contains("/rust:1."), "the build stage is not of a pinned Rust");
}

#[test]
fn user_port_version_and_arguments_agree() {
    if !have("kubectl") {
        return;
    }
    let dockerfile = read("Dockerfile");
    let user = instruction(&dockerfile, "USER");
    let port = instruction(&dockerfile, "EXPOSE");
    for directory in WORKLOADS {
        let objects = rendered(directory);
        let pod = &templates(&objects)[0].1["spec"];
        let container = &pod["containers"][0];
        let context = &pod["securityContext"];
        if !directory.ends_with("pods") {
            assert_eq!(format!("{}:{}", context["runAsUser"], context["runAsGroup"]), user, "{directory}");
        }
        assert_eq!(format!("{}/tcp", container["ports"][0]["containerPort"]), port, "{directory}");
        assert_eq!(
            container["image"],
            format!("registry.example.com/segprobe:{}", env!("CARGO_PKG_VERSION")),
            "{directory}"
        );
        assert!(container["command"].is_null(), "{directory}: the image has an entry point");
        let arguments = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
        let cli = Cli::try_parse_from(["segprobe"].into_iter().chain(arguments))
            .unwrap_or_else(|e| panic!("{directory}: {e}"));
        if let Command::Agent(args) = cli.command {
            let mounts = container["volumeMounts"].as_array().unwrap();
            let mounted = mounts.iter().find(|m| m["name"] == "config").unwrap()["mountPath"].as_str().unwrap();
            assert_eq!(args.config.config_file.parent().unwrap().to_str(), Some(mounted), "{directory}");
            assert_eq!(format!("{}/tcp", args.web.listen_address.trim_start_matches(':')), port, "{directory}");
        }
        // What the program reads from its environment.
        let variables: Vec<_> =
            container["env"].as_array().into_iter().flatten().map(|e| e["name"].as_str().unwrap()).collect();
        if !directory.ends_with("discovery") {
            assert_eq!(variables, ["NODE_NAME", "POD_NAMESPACE"], "{directory}");
        }
    }
}
