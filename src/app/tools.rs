//! What is run beside the operator: it prints, looks or cleans up, and ends.

use super::RunError;
use crate::api::crd;
use crate::broker::openapi;
use crate::cli::{CheckArgs, CleanupArgs, RbacArgs, Role};
use crate::diagnostics::check;
use crate::diagnostics::cleanup;
use crate::diagnostics::rbac::{self, BROKER, CONTROLLER};
use crate::kubernetes::client::{Connected, connect};

pub(super) fn print_crd() -> Result<(), RunError> {
    print!("{}", crd::render()?);
    Ok(())
}

pub(super) fn print_openapi() -> Result<(), RunError> {
    print!("{}", openapi::render()?);
    Ok(())
}

pub(super) fn clean_up(args: &CleanupArgs) -> Result<(), RunError> {
    let report = on_this_thread(async {
        let Connected { client, .. } = connect(args.kubeconfig.as_deref()).await?;
        Ok(cleanup::cleanup(client, &args.namespace, args.timeout).await?)
    })?;
    eprintln!("no binding is left in {}; {} were removed", args.namespace, report.removed);
    if report.unseen {
        eprintln!(
            "whether {} exists was not seen: this account may neither get the namespace nor create bindings in it",
            args.namespace
        );
    }
    if !report.forgotten.is_empty() {
        eprintln!(
            "not revoked, because their managed clusters could not be reached: {}; their tokens end by themselves \
             when they expire, their ServiceAccounts and RBAC stay there",
            report.forgotten.join(", ")
        );
    }
    Ok(())
}

pub(super) fn check_it(args: &CheckArgs) -> Result<(), RunError> {
    let lines = on_this_thread(async {
        let Connected { client, .. } = connect(args.kubeconfig.as_deref()).await?;
        Ok(Box::pin(check::check(client, args)).await)
    })?;
    for line in &lines {
        eprintln!("{line}");
    }
    Ok(check::judge(&lines)?)
}

/// Runs a tool. A name that is still being looked up when its time is over doesn't keep the process.
fn on_this_thread<T>(tool: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let done = runtime.block_on(tool);
    runtime.shutdown_background();
    done
}

pub(super) fn print_rbac(args: &RbacArgs) -> Result<(), RunError> {
    let (word, rules) = match args.role {
        Role::All => ("all", CONTROLLER),
        Role::Broker => ("broker", BROKER),
        Role::Controller => ("controller", CONTROLLER),
    };
    let name = format!("kyma-bindings-{word}");
    let objects = rbac::objects(
        rules,
        &name,
        (&args.namespace, &args.instance_namespace),
        args.service_account.as_ref(),
    );
    print!("{}", rbac::render(&objects)?);
    Ok(())
}
