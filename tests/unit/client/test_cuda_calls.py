"""Tensors on a GPU, through both clients to a gRPC server that opens their handles; the GPU is a double of CUDA."""

import asyncio
import logging
import os
import threading

import grpc
import ml_dtypes
import numpy as np
import pytest

from cuda_helpers import HostDriver, Service, Tensor, memory_of, serving
from naiad.client import AsyncClient, Client, CudaMemory, InvalidInput, SharedMemory, Unsupported
from naiad.client._device import cuda
from naiad.client._device.driver import DeviceError
from naiad.client._protocol.dlpack import _described_by

X = np.arange(8, dtype=np.float32).reshape(2, 4)
IN_VAIN = (grpc.StatusCode.INVALID_ARGUMENT, "failed to register shared memory region: invalid args")


@pytest.fixture
def driver(monkeypatch):
    driver = HostDriver()
    monkeypatch.setattr(cuda, "load", lambda: driver)
    return driver


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def url(service):
    with serving(service) as url:
        yield url


@pytest.fixture
def triton(url, driver):
    with Client(url, cuda_memory=True) as client:
        yield client


def test_a_tensor_goes_in_and_comes_out_on_the_gpu(triton, service, driver):
    """One copy into the region, none out of it; a consumer of DLPack reads the output where the server wrote it."""
    x = Tensor(X, 0, driver)
    result = triton.model("twice").infer({"x": x}, outputs_on="cuda")
    assert service.placed_inputs == 1
    assert driver.asked["copy"] == 1
    tensor = result.cuda("y")
    assert (tensor.shape, tensor.dtype, tensor.device, tensor.nbytes) == ((2, 4), np.float32, 0, 32)
    assert list(result.cuda) == ["y"]
    np.testing.assert_array_equal(memory_of(tensor), 2 * X)
    assert driver.asked["copy"] == 1
    np.testing.assert_array_equal(result["y"], 2 * X)  # a copy on the host, when it is asked for
    assert driver.asked["copy"] == 2


def test_the_producer_hands_its_tensor_over_to_a_stream_of_ours(triton, driver):
    """What the producer has queued comes before the copy; it is asked once, however often the request is sent."""
    x = Tensor(X, 0, driver)
    triton.model("twice").infer({"x": x})
    assert len(x.streams) == 1
    assert x.streams[0] in driver.streams


def test_without_outputs_on_the_outputs_are_arrays(triton, service):
    """Where outputs go is said for each call."""
    result = triton.model("twice").infer({"x": Tensor(X)})
    np.testing.assert_array_equal(result["y"], 2 * X)
    with pytest.raises(KeyError, match="found in the host's memory"):
        result.cuda["y"]
    assert len(result.cuda) == 0


def test_host_arrays_may_come_out_on_the_gpu(triton, service):
    """The input travels in the message, the output is left on the GPU."""
    result = triton.model("twice").infer({"x": X}, outputs_on="cuda:1")
    assert service.placed_inputs == 0
    assert result.cuda("y").device == 1
    np.testing.assert_array_equal(memory_of(result.cuda("y")), 2 * X)


def test_host_arrays_go_along_if_asked(url, driver, service):
    """`host_inputs` copies them to the GPU once, instead of through the message."""
    with Client(url, cuda_memory=CudaMemory(host_inputs=True)) as triton:
        triton.model("twice").infer({"x": X}, outputs_on="cuda")
    assert service.placed_inputs == 1


def test_out_receives_on_the_gpu(triton, driver):
    """The output is copied on the GPU, into the caller's tensor, which the result then has."""
    out = Tensor(np.zeros((2, 4), np.float32), 0, driver)
    result = triton.model("twice").infer({"x": Tensor(X, 0, driver)}, out={"y": out})
    assert result["y"] is out
    np.testing.assert_array_equal(out.array, 2 * X)
    assert driver.asked["copy"] == 2


def test_out_that_does_not_fit_is_refused_before_anything_is_sent(triton, service):
    """As for arrays."""
    with pytest.raises(InvalidInput, match=r"out\['y'\] is float32 \[3, 5\]"):
        triton.model("twice").infer({"x": Tensor(X)}, out={"y": Tensor(np.zeros((3, 5), np.float32))})
    assert service.placed_inputs == 0


def test_out_of_another_number_of_rows_is_refused_when_the_answer_is_there(triton):
    """Only the answer says how many rows there are."""
    with pytest.raises(InvalidInput, match=r"the answer has float32 \[2, 4\]"):
        triton.model("twice").infer({"x": Tensor(X)}, out={"y": Tensor(np.zeros((3, 4), np.float32))})


@pytest.mark.parametrize(
    ("model", "dtype"), [("half", np.float16), ("brain", ml_dtypes.bfloat16), ("truth", np.bool_), ("any", np.float32)]
)
def test_types_keep_their_bits(triton, model, dtype):
    """Both ways; the sizes of [-1, -1] are learnt from the answers of an idempotent model."""
    x = (np.arange(6) % 2).reshape(2, 3).astype(dtype)
    handle = triton.model(model, idempotent=True)
    for _ in range(2):  # the first comes in the message and is copied up, the second is written where it stays
        tensor = handle.infer({"x": Tensor(x)}, outputs_on="cuda").cuda("y")
        found = memory_of(tensor)
        assert found.dtype == tensor.dtype == dtype
        np.testing.assert_array_equal(found, x)


def test_an_output_larger_than_the_last_comes_by_the_host(triton, driver):
    """The learnt size was wrong: the request is sent again, without a place for the output."""
    handle = triton.model("any", idempotent=True)
    handle.infer({"x": Tensor(X)}, outputs_on="cuda")
    description = handle._described
    for sizes in description.on_gpu._target.seen.values():
        sizes["y"] = 4
    result = handle.infer({"x": Tensor(X)}, outputs_on="cuda")
    np.testing.assert_array_equal(memory_of(result.cuda("y")), X)


def test_gaps_are_refused(triton, service):
    """What is not row-major is copied by its owner, who knows how."""
    with pytest.raises(InvalidInput, match="contiguous"):
        triton.model("twice").infer({"x": Tensor(np.zeros((4, 2), np.float32).T)})


def test_a_wrong_type_or_shape_is_refused_as_for_arrays(triton):
    """The contract is the same wherever the tensor is."""
    with pytest.raises(InvalidInput, match="is FP32, found FP64"):
        triton.model("twice").infer({"x": Tensor(X.astype(np.float64))})
    with pytest.raises(InvalidInput, match="has the shape"):
        triton.model("twice").infer({"x": Tensor(X.reshape(4, 2))})


def test_tensors_without_an_element(triton):
    """They have no memory: they travel in the message, and come out as empty tensors."""
    result = triton.infer("any", {"x": Tensor(np.zeros((0, 4), np.float32))}, outputs_on="cuda")
    assert result.cuda("y").shape == (0, 4)
    assert memory_of(result.cuda("y")).shape == (0, 4)


@pytest.mark.parametrize("wish", ["cuda:2", 7])
def test_a_gpu_that_is_not_there_is_refused(triton, wish):
    """The error says how many there are."""
    with pytest.raises(InvalidInput, match="below 2"):
        triton.model("twice").infer({"x": X}, outputs_on=wish)


def test_several_gpus_have_a_region_each(triton, service):
    """An input on one and its output on another."""
    result = triton.model("twice").infer({"x": Tensor(X, 1)}, outputs_on="cuda:0")
    assert sorted(device for _, _, device in service.regions.values()) == [0, 1]
    assert result.cuda("y").device == 0


def test_the_server_may_count_its_gpus_otherwise(url, driver, service):
    """CUDA_VISIBLE_DEVICES of one of them."""
    with Client(url, cuda_memory=CudaMemory(server_devices={1: 0})) as triton:
        triton.model("twice").infer({"x": Tensor(X, 1)})
        assert [device for _, _, device in service.regions.values()] == [0]


def test_calls_share_one_region_which_is_registered_once(triton, service, driver):
    """Slices are given back and lent again."""
    twice = triton.model("twice")
    for _ in range(20):
        twice.infer({"x": Tensor(X)}, outputs_on="cuda")
    assert service.registered == 1
    assert driver.asked["allocate"] == 1


def test_many_threads_share_the_memory(triton, service, driver):
    """Nobody reads or writes another's slices."""
    wrong = []
    twice = triton.model("twice")

    def work(number):
        for turn in range(20):
            x = np.full((3, 4), number * 100 + turn, np.float32)
            result = twice.infer({"x": Tensor(x, number % 2, driver)}, outputs_on="cuda")
            if not np.array_equal(memory_of(result.cuda("y")), 2 * x):
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert driver.asked["allocate"] == 2


def test_memory_is_lent_as_long_as_anything_made_from_it(url, driver, service):
    """A slice that a consumer of DLPack has is not lent again, though the tensor itself is gone."""
    with Client(url, cuda_memory=CudaMemory(max_bytes=2 << 20, region_bytes=1)) as triton:
        model, big = triton.model("any", idempotent=True), np.ones((64, 1024), np.float32)
        first = memory_of(model.infer({"x": Tensor(big)}, outputs_on="cuda").cuda("y"))
        for number in range(30):  # more than the region holds at once
            model.infer({"x": Tensor(big + number)}, outputs_on="cuda").cuda("y").__dlpack__()
        np.testing.assert_array_equal(first, big)
        assert driver.asked["synchronize"] >= 1  # before slices that were handed out were lent again


def test_too_much_for_the_limit_says_so(url, driver):
    """And what to do about it."""
    with Client(url, cuda_memory=CudaMemory(max_bytes=1 << 20)) as triton:
        big = np.zeros((64, 8192), np.float32)
        with pytest.raises(Unsupported, match=r"CudaMemory\.max_bytes"):
            triton.model("any").infer({"x": Tensor(big)})


def test_regions_that_nobody_uses_make_room_for_larger_ones(url, driver, service):
    """They are unregistered and freed first."""
    with Client(url, cuda_memory=CudaMemory(max_bytes=4 << 20, region_bytes=1)) as triton:
        model = triton.model("any")
        model.infer({"x": Tensor(X)})
        big = np.ones((64, 16384), np.float32)
        np.testing.assert_array_equal(model.infer({"x": Tensor(big)})["y"], big)
        assert len(service.regions) == len(driver.memory) == 1


def test_what_a_gpu_has_not_is_said(triton, driver):
    """CUDA's own words are part of the error."""
    driver.fails["allocate"] = "out of memory"
    with pytest.raises(Unsupported, match="out of memory"):
        triton.model("twice").infer({"x": Tensor(X)})


def test_a_copy_that_fails_gives_its_region_up(triton, driver, service):
    """Nobody knows what is in it; the next call has another."""
    driver.fails["copy"] = "an illegal memory access was encountered"
    with pytest.raises(Unsupported, match="illegal memory access"):
        triton.model("twice").infer({"x": Tensor(X)})
    driver.fails.clear()
    np.testing.assert_array_equal(triton.model("twice").infer({"x": Tensor(X)})["y"], 2 * X)
    assert driver.asked["allocate"] == 2


def test_a_request_that_may_still_run_keeps_its_memory(url, driver, service):
    """Its region is given up, and freed when the server does not list it any more."""
    with Client(url, cuda_memory=True) as triton:
        twice = triton.model("twice")
        twice.infer({"x": Tensor(X)})
        service.hold = threading.Event()
        service.in_use = True
        with pytest.raises(TimeoutError):
            twice.infer({"x": Tensor(X)}, timeout_s=0.3)
        assert driver.asked["free"] == 0
        service.hold.set()
        service.in_use = False
        np.testing.assert_array_equal(twice.infer({"x": Tensor(X)})["y"], 2 * X)
        assert len(service.regions) == 2 or driver.asked["free"] == 1
    assert not service.regions
    assert not driver.memory


def test_a_server_that_was_restarted_is_told_again(triton, service):
    """The regions are registered again, and the call succeeds."""
    twice = triton.model("twice")
    for _ in range(5):
        np.testing.assert_array_equal(twice.infer({"x": Tensor(X)}, outputs_on="cuda")["y"], 2 * X)
        service.regions.clear()
    assert service.registered == 5


def test_threads_that_notice_a_restart_together_go_on(triton, service, driver):
    """It counts as one loss, however many requests it met."""
    twice = triton.model("twice")
    twice.infer({"x": Tensor(X)})
    barrier, failed = threading.Barrier(8, action=service.regions.clear), []

    def work():
        for _ in range(5):
            barrier.wait()
            try:
                twice.infer({"x": Tensor(X, 0, driver)})
            except Exception as exc:
                failed.append(exc)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_closing_unregisters_and_frees(url, driver, service):
    """Nothing is left on the server, on the GPU, or of the streams."""
    with Client(url, cuda_memory=True) as triton:
        triton.model("twice").infer({"x": Tensor(X)}, outputs_on="cuda")
        assert service.regions
    assert not service.regions
    assert not driver.memory
    assert not driver.streams


def test_an_output_outlives_its_client(url, driver, service):
    """Its memory is freed when it is gone, and not before."""
    with Client(url, cuda_memory=True) as triton:
        tensor = triton.model("twice").infer({"x": Tensor(X)}, outputs_on="cuda").cuda("y")
    assert not service.regions
    np.testing.assert_array_equal(memory_of(tensor), 2 * X)
    del tensor
    assert not driver.memory


def test_a_refusal_is_an_error_that_says_what_to_do(triton, service):
    """What was expected, what was found, and the way out."""
    service.refusal = IN_VAIN
    with pytest.raises(Unsupported, match=r"same GPU.*found .*invalid args.*cuda_memory='auto'"):
        triton.model("twice").infer({"x": Tensor(X)})


def test_auto_goes_by_the_host_with_one_line(url, driver, service, caplog):
    """Both ways: the input is copied down, the output up again, so that the program is the same."""
    service.refusal = IN_VAIN
    with caplog.at_level(logging.INFO, "naiad.client"), Client(url, cuda_memory="auto") as triton:
        for _ in range(3):
            out = Tensor(np.zeros((2, 4), np.float32))
            result = triton.model("twice").infer({"x": Tensor(X)}, outputs_on="cuda")
            np.testing.assert_array_equal(memory_of(result.cuda("y")), 2 * X)
            triton.model("twice").infer({"x": Tensor(X)}, out={"y": out})
            np.testing.assert_array_equal(out.array, 2 * X)
    assert service.placed_inputs == 0
    assert [record.message for record in caplog.records if "tensors go by the host" in record.message] != []
    assert len([record for record in caplog.records if "go by the host's" in record.message]) == 1


def test_by_the_host_large_tensors_still_use_system_shared_memory(url, driver, service):
    """The fallback is an ordinary request."""
    service.refusal = IN_VAIN
    big = np.ones((64, 8192), np.float32)
    with Client(url, cuda_memory="auto", shared_memory=SharedMemory()) as triton:
        np.testing.assert_array_equal(triton.model("any").infer({"x": Tensor(big)})["y"], big)


def test_auto_without_cuda_says_why(url, service, monkeypatch, caplog):
    """A machine without a GPU, or without the package: outputs come as arrays."""

    def load():
        raise DeviceError("expected an NVIDIA GPU, found none")

    monkeypatch.setattr(cuda, "load", load)
    with caplog.at_level(logging.INFO, "naiad.client"), Client(url, cuda_memory="auto") as triton:
        for _ in range(2):
            np.testing.assert_array_equal(triton.model("twice").infer({"x": X}, outputs_on="cuda")["y"], 2 * X)
    assert len([record for record in caplog.records if "found none" in record.message]) == 1
    with Client(url, cuda_memory=True) as triton, pytest.raises(Unsupported, match=r"found none.*'auto'"):
        triton.model("twice").infer({"x": X}, outputs_on="cuda")


@pytest.mark.parametrize("mode", [True, "auto"])
@pytest.mark.parametrize("place", ["gpu", "", "cuda:", "cuda0", -1, True])
def test_a_place_that_has_no_such_name_is_refused_without_cuda_too(url, service, mode, place):
    """A typing error must not wait for a machine with a GPU."""
    with (
        Client(url, cuda_memory=mode) as triton,
        pytest.raises(InvalidInput, match=f"'cuda:N', N or 'cpu', found {place!r}"),
    ):
        triton.model("twice").infer({"x": X}, outputs_on=place)


def test_other_requests_of_such_a_client_do_not_know_cuda(url, service, monkeypatch):
    """Arrays go their way; CUDA is loaded when a tensor on a GPU comes."""

    def load():
        raise AssertionError

    monkeypatch.setattr(cuda, "load", load)
    with Client(url, cuda_memory=True) as triton:
        np.testing.assert_array_equal(triton.model("twice").infer({"x": X}, outputs_on="cpu")["y"], 2 * X)


def test_without_cuda_memory_tensors_on_a_gpu_are_refused(url):
    """The error says which argument takes them."""
    with Client(url) as triton:
        with pytest.raises(InvalidInput, match="cuda_memory=True"):
            triton.model("twice").infer({"x": Tensor(X)})
        with pytest.raises(InvalidInput, match="cuda_memory=True"):
            triton.model("twice").infer({"x": X}, outputs_on="cuda")


def test_a_server_elsewhere_is_not_tried(driver):
    """An address that is not this machine's: nothing is sent there."""
    client = Client("grpc://192.0.2.1:8001", cuda_memory=CudaMemory(), timeout=5)
    with client as triton, pytest.raises(Unsupported, match="not on this machine"):
        triton.infer("twice", {"x": Tensor(X)})


def test_calls_that_join_or_divide_rows_take_arrays_only(triton):
    """They say so before anything is sent."""
    twice = triton.model("twice")
    with twice.batched() as batched, pytest.raises(InvalidInput, match="outputs_on"):
        batched.infer({"x": X}, outputs_on="cuda")
    with pytest.raises(InvalidInput, match="outputs_on"):
        twice.infer_many({"x": X}, outputs_on="cuda")
    with pytest.raises(InvalidInput, match="on a CUDA device"):
        twice.infer_many({"x": Tensor(X)})
    with pytest.raises(InvalidInput, match="outputs_on"):
        twice.stream_infer({"x": X}, outputs_on="cuda")


def test_submitted_requests_and_many_of_them(triton):
    """Several in flight have slices of their own."""
    twice = triton.model("twice")
    tensors = [X + number for number in range(6)]
    calls = [twice.submit({"x": Tensor(x)}, outputs_on="cuda") for x in tensors]
    for x, call in zip(tensors, calls, strict=True):
        np.testing.assert_array_equal(memory_of(call.result().cuda("y")), 2 * x)
    for x, result in zip(tensors, twice.infer_many([{"x": Tensor(x)} for x in tensors]), strict=True):
        np.testing.assert_array_equal(result["y"], 2 * x)


def test_a_call_whose_answer_nobody_reads_gives_its_region_up(triton, driver, service):
    """Nobody knows when it ended."""
    call = triton.model("twice").submit({"x": Tensor(X)})
    del call
    triton.model("twice").infer({"x": Tensor(X)})
    assert driver.asked["allocate"] == 2


def test_a_forked_child_is_told(triton, driver):
    """CUDA is not touched there, nor is the parent's memory freed by its end."""
    twice = triton.model("twice")
    result = twice.infer({"x": Tensor(X)}, outputs_on="cuda")
    asked = dict(driver.asked)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"nothing"
        try:
            twice.infer({"x": X}, outputs_on="cuda")
        except Unsupported as exc:
            said = str(exc).encode()
        del result
        same = dict(driver.asked) == asked
        os.write(writing, said if same else b"CUDA was touched")
        os._exit(0)
    os.waitpid(child, 0)
    assert b"forked" in os.read(reading, 1000)
    os.close(reading)
    os.close(writing)


def test_in_an_event_loop(url, driver, service):
    """The same, and the loop is not held up by what a producer still computes."""
    driver.slow = True

    async def work():
        async with AsyncClient(url, cuda_memory=True) as triton:
            twice = triton.model("twice")

            async def one(number):
                x = X + number
                result = await twice.infer({"x": Tensor(x)}, outputs_on="cuda")
                np.testing.assert_array_equal(memory_of(result.cuda("y")), 2 * x)

            await asyncio.gather(*(one(number) for number in range(10)))
            service.refusal = IN_VAIN
            service.regions.clear()
            with pytest.raises(Unsupported, match="invalid args"):
                await one(0)

    asyncio.run(work())
    assert not driver.memory


def test_an_output_is_handed_over_as_dlpack_has_it(triton):
    """In both versions of the protocol, with the type that the consumer knows, and only where it is."""
    tensor = (
        triton.model("brain", idempotent=True)
        .infer({"x": Tensor(X.astype(ml_dtypes.bfloat16))}, outputs_on="cuda:1")
        .cuda("y")
    )
    assert tensor.__dlpack_device__() == (2, 1)
    for version in (None, (1, 0)):
        capsule = tensor.__dlpack__(stream=1, max_version=version)
        described = _described_by(capsule)
        assert (described.code, described.bits, described.device_type, described.device_id) == (4, 16, 2, 1)
        assert described.data == tensor.address
    assert tensor.__dlpack__(dl_device=(2, 1), copy=False)
    for wish in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match="on GPU 1"):
            tensor.__dlpack__(**wish)


def test_the_missing_package_is_named(monkeypatch):
    """What to install."""
    import sys

    for name in ("cuda", "cuda.bindings", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceError, match=r"pip install 'naiad\[cuda\]'"):
        cuda.load()
