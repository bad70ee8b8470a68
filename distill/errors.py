"""Every error this project raises on purpose.

DistillError
 ├ ConfigError      a setting, an option or the project file is wrong
 ├ SchemaError      the public schema is wrong or not confirmed
 ├ DataError        a table cannot be read or does not fit its schema
 ├ BudgetError      a release would cost more than was granted, or less than is useful
 │  └ CopiedTableError       the table has a budget under another ledger already
 ├ UnpaidReadError  private rows were asked for without a reserved event that pays
 ├ KeyFileError     a signing or verifying key is missing, unreadable or the wrong one
 ├ LedgerError      the ledger is missing, belongs elsewhere or is in use
 │  └ LedgerTamperedError    the chain of entries does not verify
 ├ StateError       what is kept on this machine of known tables cannot be used
 ├ BundleError      a bundle cannot be read
 │  ├ BundleTamperedError    bytes, digests or signature disagree
 │  ├ BundleVersionError     written by a newer version
 │  ├ BundleMismatchError    bundles (or a bundle and a model) describe different schemas
 │  └ RehearsalBundleError   a rehearsal is offered where a private release is needed
 └ ModelError       a trained model cannot be read or does not fit the data

Messages name what, where and the mend. They quote public values (names, bounds, budgets), never a record.
"""


class DistillError(Exception):
    """Base of all errors that are meant for the user; the command line shows one line and exits with 2."""


class ConfigError(DistillError):
    """A setting, an option or the project file is wrong."""


class SchemaError(DistillError):
    """The public schema is wrong or not confirmed."""


class DataError(DistillError):
    """A table cannot be read or does not fit its schema."""


class BudgetError(DistillError):
    """A release would cost more than was granted, or the budget is too small for the table."""


class CopiedTableError(BudgetError):
    """The table has a budget under another ledger already, and no officer declared the two linked."""


class UnpaidReadError(DistillError):
    """Private rows were asked for without a reserved event that pays for the read."""


class KeyFileError(DistillError):
    """A key file is missing, unreadable, exposed or the wrong one."""


class LedgerError(DistillError):
    """The ledger is missing, belongs to another data set or is in use."""


class LedgerTamperedError(LedgerError):
    """The ledger's chain, a signature or an epsilon does not verify."""


class StateError(DistillError):
    """What is kept on this machine of known tables cannot be read or written, or others can read it."""


class BundleError(DistillError):
    """A bundle cannot be read."""


class BundleTamperedError(BundleError):
    """Bytes, digests or the signature of a bundle disagree."""


class BundleVersionError(BundleError):
    """The bundle was written by a newer version of this software."""


class BundleMismatchError(BundleError):
    """Bundles, or a bundle and a model, describe different schemas."""


class RehearsalBundleError(BundleError):
    """A rehearsal (not private) is offered where a private release is needed."""


class ModelError(DistillError):
    """A trained model cannot be read or does not fit the data."""
