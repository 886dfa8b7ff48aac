"""Calls a running identity server as a Python service would.

Usage: client.py HOST:PORT [AUTHORITY CERTIFICATE KEY]

With the three PEM files, over TLS with a client certificate.
"""

import pathlib
import secrets
import sys
import unittest
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
sys.path.insert(0, str(PROTO))
messages, services = grpc.protos_and_services("identity/v1/identity.proto")
directory, directory_services = grpc.protos_and_services("identity/v1/directory.proto")
audit, audit_services = grpc.protos_and_services("identity/v1/audit.proto")
types = grpc.protos("identity/v1/types.proto")

SERVICE = "identity.v1.IdentityService"
SERVICES = (SERVICE, "identity.v1.DirectoryService", "identity.v1.AuditService")
TIMEOUT = 20


class Interop(unittest.TestCase):
    address = ""
    credentials = None

    @classmethod
    def setUpClass(cls):
        cls.channel = (
            grpc.secure_channel(cls.address, cls.credentials)
            if cls.credentials
            else grpc.insecure_channel(cls.address)
        )
        grpc.channel_ready_future(cls.channel).result(timeout=TIMEOUT)
        cls.identity = services.IdentityServiceStub(cls.channel)
        cls.directory = directory_services.DirectoryServiceStub(cls.channel)
        cls.audit = audit_services.AuditServiceStub(cls.channel)
        cls.health = health_pb2_grpc.HealthStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()

    def registration(self, **changes):
        fields = {
            "email": f"Ada.{secrets.token_hex(8)}@Example.com",
            "password": secrets.token_urlsafe(16),
            "first_name": "Ada",
            "last_name": "Lovelace",
            "tenant_name": "Analytical Engines",
        }
        return messages.RegisterRequest(**(fields | changes))

    def register(self, request):
        return self.identity.Register(request, timeout=TIMEOUT)

    def login(self, email, password):
        request = messages.LoginRequest(email=email, password=password)
        return self.identity.Login(request, timeout=TIMEOUT)

    def get_user(self, token=None, user_id=""):
        metadata = [("authorization", f"Bearer {token}")] if token is not None else []
        request = messages.GetUserRequest(user_id=user_id)
        return self.identity.GetUser(request, timeout=TIMEOUT, metadata=metadata).user

    def refusal(self, code, reason, call, *arguments):
        """Asserts how a call fails, and returns the details by type."""
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments)
        error = caught.exception
        self.assertEqual(error.code(), code, error)
        status = rpc_status.from_call(error)
        self.assertIsNotNone(status, f"no grpc-status-details-bin: {error}")
        self.assertEqual(status.code, code.value[0])
        self.assertEqual(status.message, error.details())
        details = {detail.TypeName(): detail for detail in status.details}
        info = error_details_pb2.ErrorInfo()
        self.assertTrue(details["google.rpc.ErrorInfo"].Unpack(info))
        self.assertEqual((info.domain, info.reason), ("identity", reason))
        return details

    def violations(self, details):
        bad_request = error_details_pb2.BadRequest()
        self.assertTrue(details["google.rpc.BadRequest"].Unpack(bad_request))
        for violation in bad_request.field_violations:
            self.assertTrue(violation.description, violation.field)
        return sorted(violation.field for violation in bad_request.field_violations)

    def test_several_addresses_need_an_authority(self):
        if self.credentials:
            self.skipTest("certificates are for names")
        addresses = f"ipv4:{self.address},{self.address}"
        check = health_pb2.HealthCheckRequest()
        with grpc.insecure_channel(addresses) as channel:
            with self.assertRaises(grpc.RpcError) as caught:
                health_pb2_grpc.HealthStub(channel).Check(check, timeout=TIMEOUT)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INTERNAL)
        options = [("grpc.default_authority", "identity.internal")]
        with grpc.insecure_channel(addresses, options=options) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(check, timeout=TIMEOUT)
        self.assertEqual(reply.status, health_pb2.HealthCheckResponse.SERVING)

    def test_register_returns_the_owner_the_tenant_and_tokens(self):
        request = self.registration()
        answer = self.register(request)
        user = answer.user
        self.assertEqual(str(uuid.UUID(user.id)), user.id)
        self.assertEqual(user.email, request.email)
        self.assertEqual((user.first_name, user.last_name), ("Ada", "Lovelace"))
        self.assertEqual(user.role, types.ROLE_OWNER)
        self.assertEqual(user.state, types.USER_STATE_ACTIVE)
        self.assertEqual(user.tenant.id, user.tenant_id)
        self.assertEqual(user.tenant.name, "Analytical Engines")
        self.assertTrue(user.etag)
        self.assertTrue(user.tenant.etag)
        self.assertGreater(user.created_at.seconds, 1_700_000_000)
        self.assertEqual(answer.access_token.count("."), 2)
        self.assertGreater(answer.access_token_expires_at.seconds, user.created_at.seconds)
        self.assertTrue(answer.refresh_token)

    def test_the_same_request_id_registers_once(self):
        request = self.registration(request_id=str(uuid.uuid4()))
        first, second = self.register(request), self.register(request)
        self.assertEqual(first.user.id, second.user.id)
        self.assertEqual(first.user.tenant_id, second.user.tenant_id)

    def test_login_returns_the_user_and_tokens_whatever_the_case_of_the_email(self):
        request = self.registration()
        registered = self.register(request).user
        answer = self.login(request.email.lower(), request.password)
        self.assertEqual(answer.user.id, registered.id)
        self.assertEqual(answer.user.tenant, registered.tenant)
        self.assertEqual(answer.access_token.count("."), 2)
        self.assertTrue(answer.refresh_token)

    def test_get_user_returns_the_caller_by_token_and_by_id(self):
        answer = self.register(self.registration())
        self.assertEqual(self.get_user(answer.access_token), answer.user)
        self.assertEqual(self.get_user(answer.access_token, answer.user.id), answer.user)

    def test_get_user_hides_users_of_other_tenants(self):
        mine, other = self.register(self.registration()), self.register(self.registration())
        outcome = (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND", self.get_user, mine.access_token)
        self.refusal(*outcome, other.user.id)
        self.refusal(*outcome, str(uuid.uuid4()))

    def test_get_user_wants_a_valid_token_and_a_valid_id(self):
        unauthenticated = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID", self.get_user)
        invalid = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", self.get_user)
        if self.credentials:
            # The certificate says which service calls, and a service has to name a user.
            self.assertEqual(self.violations(self.refusal(*invalid)), ["user_id"])
        else:
            self.refusal(*unauthenticated)
        self.refusal(*unauthenticated, "nonsense")
        token = self.register(self.registration()).access_token
        details = self.refusal(*invalid, token, "nonsense")
        self.assertEqual(self.violations(details), ["user_id"])

    def test_a_wrong_password_and_an_unknown_email_get_one_reply(self):
        request = self.registration()
        self.register(request)
        outcome = (grpc.StatusCode.UNAUTHENTICATED, "LOGIN_FAILED", self.login)
        wrong = self.refusal(*outcome, request.email, "not the password")
        unknown = self.refusal(*outcome, "nobody@example.com", request.password)
        self.assertEqual(wrong, unknown)

    def test_a_taken_email_is_refused(self):
        request = self.registration()
        self.register(request)
        again = self.registration(email=request.email.upper())
        self.refusal(grpc.StatusCode.ALREADY_EXISTS, "EMAIL_TAKEN", self.register, again)

    def test_every_invalid_field_is_named_at_once(self):
        request = messages.RegisterRequest(email="nonsense", password="short", request_id="nonsense")
        details = self.refusal(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", self.register, request
        )
        fields = ["email", "first_name", "last_name", "password", "request_id", "tenant_name"]
        self.assertEqual(self.violations(details), fields)

    def test_every_reply_carries_a_request_id(self):
        _, call = self.identity.Register.with_call(self.registration(), timeout=TIMEOUT)
        self.assert_request_id(call)
        with self.assertRaises(grpc.RpcError) as caught:
            self.login("nobody@example.com", "not the password")
        self.assert_request_id(caught.exception)

    def assert_request_id(self, call):
        metadata = [*call.initial_metadata(), *call.trailing_metadata()]
        self.assertTrue(any(key == "x-request-id" and value for key, value in metadata), metadata)

    def test_an_owner_keeps_the_users_of_the_tenant(self):
        owner = self.register(self.registration())
        metadata = [("authorization", f"Bearer {owner.access_token}")]

        def call(method, request):
            return method(request, timeout=TIMEOUT, metadata=metadata)

        fields = {"first_name": "Charles", "last_name": "Babbage", "role": types.ROLE_ADMIN}
        email, password = f"{secrets.token_hex(8)}@example.com", secrets.token_urlsafe(16)
        new = directory.CreateUserRequest(email=email, password=password, **fields)
        user = call(self.directory.CreateUser, new).user
        self.assertEqual((user.email, user.role, user.tenant), (email, types.ROLE_ADMIN, owner.user.tenant))
        self.assertEqual(self.login(email, password).user, user)

        listed = call(self.directory.ListUsers, directory.ListUsersRequest(page_size=1, count_total=True))
        self.assertEqual((list(listed.users), listed.total_size), ([user], 2))
        self.assertFalse(listed.total_size_is_estimate)
        # A page may be short or empty: a list ends where there is no token.
        users, page_token = [], None
        while page_token != "":
            request = directory.ListUsersRequest(page_size=1, page_token=page_token)
            page = call(self.directory.ListUsers, request)
            users += page.users
            page_token = page.next_page_token
        self.assertEqual(users, [user, owner.user])

        update = directory.UpdateUserRequest(
            user=types.User(id=user.id, etag=user.etag, first_name="C."),
            update_mask={"paths": ["first_name"]},
        )
        self.assertEqual(call(self.directory.UpdateUser, update).user.first_name, "C.")
        self.refusal(grpc.StatusCode.ABORTED, "ETAG_STALE", call, self.directory.UpdateUser, update)
        delete = directory.DeleteUserRequest(user_id=owner.user.id)
        last = (grpc.StatusCode.FAILED_PRECONDITION, "LAST_OWNER", call, self.directory.DeleteUser, delete)
        self.refusal(*last)

        request = audit.ListAuditEventsRequest(target_id=user.id, actions=["user.created", "user.updated"])
        events = call(self.audit.ListAuditEvents, request).events
        self.assertEqual([event.action for event in events], ["user.updated", "user.created"])
        self.assertEqual({event.actor_id for event in events}, {owner.user.id})

    def test_unknown_methods_are_unimplemented(self):
        call = self.channel.unary_unary(f"/{SERVICE}/Nonsense")
        with self.assertRaises(grpc.RpcError) as caught:
            call(b"", timeout=TIMEOUT)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_health_is_serving_under_every_name(self):
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ("", "liveness", "readiness", *SERVICES):
            with self.subTest(name=name):
                request = health_pb2.HealthCheckRequest(service=name)
                self.assertEqual(self.health.Check(request, timeout=TIMEOUT).status, serving)
                watch = self.health.Watch(request, timeout=TIMEOUT)
                self.assertEqual(next(watch).status, serving)
                watch.cancel()

    def test_health_does_not_know_other_names(self):
        request = health_pb2.HealthCheckRequest(service="nonsense")
        with self.assertRaises(grpc.RpcError) as caught:
            self.health.Check(request, timeout=TIMEOUT)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        watch = self.health.Watch(request, timeout=TIMEOUT)
        self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        watch.cancel()

    def test_several_addresses_need_an_authority(self):
        if self.credentials:
            self.skipTest("the certificate decides on the authority")
        target = f"ipv4:{self.address},{self.address}"
        request = health_pb2.HealthCheckRequest()
        with grpc.insecure_channel(target) as channel, self.assertRaises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INTERNAL)
        options = [("grpc.default_authority", "identity.internal")]
        with grpc.insecure_channel(target, options=options) as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT).status
        self.assertEqual(status, health_pb2.HealthCheckResponse.SERVING)

    def test_reflection_shows_the_contract(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        self.assertLessEqual({*SERVICES, "grpc.health.v1.Health"}, set(database.get_services()))
        file = database.FindFileContainingSymbol(SERVICE)
        self.assertEqual(file.name, "identity/v1/identity.proto")
        methods = {method.name for service in file.service for method in service.method}
        self.assertLessEqual({"Register", "Login", "GetUser"}, methods)
        # Comments are part of what people read there, the imports of what tools need.
        self.assertIn("identity/v1/types.proto", file.dependency)
        self.assertTrue(database.FindFileByName("identity/v1/types.proto").message_type)


if __name__ == "__main__":
    Interop.address = sys.argv.pop(1)
    if len(sys.argv) > 3:
        authority, certificate, key = [pathlib.Path(sys.argv.pop(1)).read_bytes() for _ in range(3)]
        Interop.credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    unittest.main(verbosity=2)
