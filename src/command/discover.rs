//! `segprobe discover`: what the Kubernetes API tells, into ConfigMaps, for ever; or once, for a repository.

use std::{io::Write, process::ExitCode, sync::Arc, time::Duration};

use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Failure, load_web, runtime};
use crate::{
    cli::DiscoverArgs,
    discovery::{
        api::Api,
        follow::{World, follow_all, read_once},
        objects::labels,
        settings::{self, Settings},
        write::{Writer, manifests},
    },
    export::{VERSION, discovery::page, http, log},
    web::listener,
};

/// Time for a connection to the API server.
const CONNECT: Duration = Duration::from_secs(10);
/// Lengths of watches: each ends with a bookmark, so two fit between heartbeats.
const WATCHES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(295));

pub fn run(args: &DiscoverArgs) -> Result<ExitCode, Failure> {
    log::init(args.log.level, args.log.format);
    let settings = settings::load(&args.config_file)?;
    if args.once {
        return runtime()?.block_on(async {
            let (api, world) = (connect(&settings).await?, World::default());
            read_once(&api, &world).await.map_err(Failure::Usage)?;
            let (text, set, left_out) = world.with(|inventory| manifests(&settings, inventory));
            std::io::stdout().write_all(text.as_bytes()).map_err(Failure::output)?;
            for (gap, count) in &set.gaps {
                super::complain(format_args!("no target: {gap}: {count}"));
            }
            if left_out > 0 {
                return Err(Failure::Usage(format!(
                    "{left_out} targets do not fit into the ConfigMaps; give fewer namespaces the zone's label"
                )));
            }
            Ok(ExitCode::SUCCESS)
        });
    }
    let web = load_web(&args.web, false)?;
    let listener = listener::bind(&args.web.listen_address).map_err(Failure::listen(&args.web.listen_address))?;
    runtime()?.block_on(async {
        let handle = |kind| signal(kind).map_err(Failure::system("handle signals"));
        let (mut term, mut int) = (handle(SignalKind::terminate())?, handle(SignalKind::interrupt())?);
        let mut hangup = handle(SignalKind::hangup())?;
        let api = connect(&settings).await?;
        let address = listener.local_addr().map_err(Failure::system("read the listener's address"))?;
        info!(version = VERSION, %address, heartbeat = settings.heartbeat.as_secs(), "started");

        let watches = (settings.heartbeat / 2).clamp(WATCHES.0, WATCHES.1);
        let (world, writer) = (Arc::new(World::default()), Arc::new(Writer::new(settings)));
        let (to_show, to_ask) = ((world.clone(), writer.clone(), web.clone()), writer.clone());
        let ready = move || match to_ask.written() {
            written if written.heartbeat.is_none() => Err("the targets are not written yet"),
            written if written.failing > 0 => Err("not all targets are written; the log names the ConfigMaps"),
            _ => Ok(()),
        };
        let metrics = move || page(&to_show.0.kinds(), &to_show.1.written(), to_show.2.status());
        let site = http::bare_site(&args.web.telemetry_path, metrics, ready);
        let stop = CancellationToken::new();
        let tls = web.clone();
        let served = listener::serve(listener, web.guard(site), move || tls.tls(), stop.clone());
        let mut server = tokio::spawn(served);
        tokio::spawn(web.clone().watch());
        let reloads = async {
            while hangup.recv().await.is_some() {
                let _ = web.reload("SIGHUP");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = reloads => {}
            () = follow_all(&api, &world, watches) => {}
            () = writer.keep_writing(&api, &world) => {}
            ended = &mut server => {
                let what = ended.map_err(std::io::Error::other).and_then(|served| served);
                return Err(Failure::system("serve HTTP")(what.err().unwrap_or_else(|| std::io::Error::other("it ended"))));
            }
        }
        info!("stopping");
        stop.cancel();
        let _ = server.await;
        Ok(ExitCode::SUCCESS)
    })
}

/// By `KUBECONFIG` or the home directory's file, or as a pod by its service account.
async fn connect(settings: &Settings) -> Result<Api, Failure> {
    let wrong = |e: &dyn std::fmt::Display| {
        Failure::Usage(format!(
            "find the API server: {e}; in a pod, mount a service account token; elsewhere, set KUBECONFIG"
        ))
    };
    let mut config = Config::infer().await.map_err(|e| wrong(&e))?;
    config.connect_timeout = Some(CONNECT);
    // What is asked again, and when, is our own affair: the server may say when.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|e| wrong(&e))?;
    Ok(Api::new(client, labels(settings)))
}
