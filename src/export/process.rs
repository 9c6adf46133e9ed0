//! The `process_*` metrics that Prometheus' client libraries export for every process, read from `/proc`.

use std::{fmt::Display, fs, sync::LazyLock};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rustix::param::{clock_ticks_per_second, page_size};

use super::exposition::Exposition;

/// Start of the process in seconds since the epoch. It is computed once: the kernel's boot time follows
/// changes of the clock, and `changes()` would count each of them as a restart.
static START_TIME: LazyLock<Option<f64>> = LazyLock::new(|| {
    let boot_time = boot_time(&fs::read_to_string("/proc/stat").ok()?)?;
    Some(boot_time + seconds(Stat::read()?.start_ticks))
});

/// The fields of `/proc/self/stat` that are exported.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

/// Adds the metrics of this process. A metric that cannot be read is left out.
pub fn process(page: &mut Exposition) {
    let stat = Stat::read();
    let stat = stat.as_ref();
    add(
        page,
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        stat.map(|stat| seconds(stat.cpu_ticks)),
    );
    let max_fds = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft).filter(|soft| *soft != RLIM_INFINITY);
    add(page, "process_max_fds", "gauge", "Maximum number of open file descriptors.", max_fds);
    let open_fds = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    add(page, "process_open_fds", "gauge", "Number of open file descriptors.", open_fds);
    add(
        page,
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        stat.map(|stat| stat.resident_pages * page_size() as u64),
    );
    add(
        page,
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        *START_TIME,
    );
    add(page, "process_threads", "gauge", "Number of OS threads in the process.", stat.map(|stat| stat.threads));
    add(
        page,
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory size in bytes.",
        stat.map(|stat| stat.virtual_bytes),
    );
}

fn add(page: &mut Exposition, name: &str, kind: &str, help: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        page.family(name, kind, help);
        page.sample(name, &[], value);
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

/// The boot time in seconds since the epoch, from the text of `/proc/stat`.
fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Reads the text of a `stat` file, whose fields proc_pid_stat(5) numbers from 1.
    fn parse(text: &str) -> Option<Self> {
        // Field 2, the program's name, is in parentheses and may itself have spaces and parentheses.
        let (_, from_third) = text.rsplit_once(')')?;
        let fields: Vec<&str> = from_third.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_stat_are_counted_after_the_name() {
        let text =
            "7 (a b) c) S 1 7 7 0 -1 4194560 300 0 0 0 11 22 0 0 20 0 5 0 4242 900000 321 18446744073709551615 1 1";
        let stat = Stat { cpu_ticks: 33, threads: 5, start_ticks: 4242, virtual_bytes: 900_000, resident_pages: 321 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (a b) S 1 7 7"), None);
        assert_eq!(Stat::parse(""), None);
        assert_eq!(boot_time("cpu  1 2 3\nbtime 1764513000\nprocesses 9\n"), Some(1_764_513_000.0));
        assert_eq!(boot_time("cpu  1 2 3\n"), None);
    }

    #[test]
    fn this_process_has_all_seven() {
        let mut page = Exposition::default();
        process(&mut page);
        let page = page.finish();
        let value = |name: &str| -> f64 {
            let sample = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            sample.unwrap_or_else(|| panic!("{name} is missing:\n{page}")).parse().unwrap()
        };
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!(value("process_cpu_seconds_total") < 3600.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_threads") >= 1.0);
        assert!((1e6..1e11).contains(&value("process_resident_memory_bytes")));
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!((now - 3600.0..now + 2.0).contains(&value("process_start_time_seconds")));
        assert_eq!(page.matches("# HELP ").count(), 7);
    }
}
