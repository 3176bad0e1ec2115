"""`case`, as in `bitfold.testing`: these tests are about more than a method has to hold."""

from bitfold.testing.fixtures import pytest_configure as pytest_configure
from bitfold.testing.fixtures import pytest_generate_tests as pytest_generate_tests
from bitfold.testing.fixtures import threads as threads
